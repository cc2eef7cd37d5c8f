"""``headrace tail``: the last events of a real product, masked, followed until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from headrace.selfserve.main import main
from tests.support.meshes import ORDERS, order, send
from tests.support.sinks import events, eventually

if TYPE_CHECKING:
    from headrace.schemas.mesh import Mesh


def tail(mesh: Mesh, *arguments: str) -> int:
    return main(["--mesh", str(mesh.root), "--environment", "cluster", "tail", ORDERS, *arguments])


def publish(mesh: Mesh, first: int, behind: int) -> None:
    product = mesh.product(ORDERS)
    # One by one, so that their times ascend over the partitions too.
    for number in range(first, behind):
        send(mesh, product.topic, events(mesh, product, [order(number)]))


def test_the_last_events_of_all_partitions_are_shown_masked(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    publish(mesh, 0, 12)
    assert tail(mesh, "--format", "json", "-n", "6") == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["event"]["id"] for each in shown] == [f"o{number}" for number in range(6, 12)]
    assert {each["partition"] for each in shown} == {0, 1}
    assert all(each["timestamp"].endswith("Z") for each in shown)
    assert [each["event"]["email"] and len(each["event"]["email"]) for each in shown] == [None, 64] * 3


def test_raw_shows_everything_and_warns(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    publish(mesh, 3, 4)
    assert tail(mesh, "--raw") == 0
    told = capsys.readouterr()
    (line,) = told.out.splitlines()
    place, time, event = line.split("  ", 2)
    assert place.endswith(":0")
    assert time.endswith("Z")
    assert json.loads(event) == order(3)
    assert told.err == "warning: PII is shown as it is\n"


def test_an_empty_topic_shows_nothing(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    assert tail(mesh) == 0
    assert capsys.readouterr().out == ""


def test_marks_of_transactions_do_not_take_events_places(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    product = mesh.product(ORDERS)
    producer = Producer({**mesh.environment.kafka_config(), "transactional.id": product.topic})
    producer.init_transactions()
    for key, value in events(mesh, product, map(order, range(12))):
        # Each event is a transaction of its own: every other offset is a mark.
        producer.begin_transaction()
        producer.produce(product.topic, value, key, 0)
        producer.commit_transaction()
    assert tail(mesh, "--format", "json", "-n", "4") == 0
    shown = [json.loads(line)["event"]["id"] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["o8", "o9", "o10", "o11"]


def test_what_is_no_event_is_named_and_passed(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    product = mesh.product(ORDERS)
    send(mesh, product.topic, [("k", b"\x1b[31m")], partition=1)
    publish(mesh, 0, 2)
    assert tail(mesh) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert told.err == "1:0  no event (no-schema-id): the value does not begin with a schema id\n"


def test_control_characters_of_an_event_do_not_reach_the_terminal(
    mesh: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    product = mesh.product(ORDERS)
    send(mesh, product.topic, events(mesh, product, [{**order(0), "id": "\x1b[31m\x9b\n"}]))
    for form in ("json", "table"):
        assert tail(mesh, "--format", form) == 0
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        assert not set(out) & {"\x1b", "\x9b"}
    assert tail(mesh, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["event"]["id"] == "\x1b[31m\x9b\n"


def test_without_the_masks_key_it_says_what_is_missing(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    (mesh.root / "hmac.key").unlink()
    assert tail(mesh) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "hmac.key does not exist" in told.err
    assert tail(mesh, "--raw") == 0


def test_an_unknown_product_is_named(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mesh", str(mesh.root), "--environment", "cluster", "tail", "shop.order"]) == 1
    assert "did you mean shop.orders?" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "2"])
def test_follow_goes_on_until_ctrl_c(mesh: Mesh, tmp_path: Path, count: str) -> None:
    publish(mesh, 0, 3)
    out, err = tmp_path / "out", tmp_path / "err"
    command = [str(Path(sys.executable).with_name("headrace")), "--mesh", str(mesh.root), "--environment", "cluster"]
    with (
        out.open("w") as stdout,
        err.open("w") as stderr,
        subprocess.Popen(
            [*command, "tail", ORDERS, "-n", count, "--follow", "--format", "json"], stdout=stdout, stderr=stderr
        ) as process,
    ):
        try:

            def seen() -> list[str]:
                """The ids that are shown, without that of a line that is being written."""
                lines = out.read_text().splitlines(keepends=True)
                return [json.loads(line)["event"]["id"] for line in lines if line.endswith("\n")]

            if count != "0":
                assert eventually(lambda: seen() == ["o1", "o2"]), err.read_text()
                # What is sent before it has begun to follow comes too.
                publish(mesh, 3, 6)
                assert eventually(lambda: sorted(seen()) == ["o1", "o2", "o3", "o4", "o5"]), (seen(), err.read_text())
            more = iter(range(6, 10_000))

            def one_more_is_seen() -> bool:
                publish(mesh, number := next(more), number + 1)
                return len(seen()) > 5

            assert eventually(one_more_is_seen), (seen(), err.read_text())
            assert count != "0" or not {"o0", "o1", "o2"} & set(seen())
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert "Traceback" not in err.read_text()
