"""Every kind of product that ``headrace new`` writes, unedited: checked, applied, published to, landed, queried."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from headrace.selfserve.init import EXAMPLE_EVENTS, EXAMPLE_PRODUCT, init_mesh
from headrace.selfserve.kinds import Kind
from headrace.selfserve.main import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.meshes import Cluster

NAMES = {Kind.EVENT: "shop/returns", Kind.CHANGE_STREAM: "crm/customers", Kind.DERIVED: "shop/refunds"}


class Typed:
    """The command line on one mesh; each call must succeed, and what it wrote to stdout comes back."""

    def __init__(self, capsys: pytest.CaptureFixture[str], root: Path) -> None:
        self._capsys, self.root = capsys, root

    def __call__(self, *words: str) -> str:
        self._capsys.readouterr()
        status = main(["--mesh", str(self.root), "--environment", "cluster", *words])
        shown = self._capsys.readouterr()
        assert status == 0, shown.err
        return shown.out

    def rows(self, query: str) -> Any:
        return json.loads(self("sql", query, "--format", "json"))


@pytest.fixture
def typed(cluster: Cluster, tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]) -> Typed:
    """A new mesh with an environment on the cluster, nothing else changed."""
    root = tmp_path / "mesh"
    init_mesh(root)
    environment = f"""\
  cluster:
    topic_prefix: {prefix}
    sink: {{commit_interval_s: 0.2}}
    kafka: {{bootstrap.servers: "{cluster.endpoints.bootstrap_servers}"}}
    registry: {{url: "{cluster.endpoints.registry_url}"}}
    masking: {{hmac_key: "${{file:.headrace/hmac.key}}"}}
    catalog:
      type: sql
      uri: "sqlite:///{root}/{{storage}}.db"
      warehouse: "file://{root}/tables/{{storage}}"
"""
    with (root / "mesh.yaml").open("a", encoding="utf-8") as file:
        file.write(environment)
    return Typed(capsys, root)


def readme_of(typed: Typed, name: str) -> str:
    return (typed.root / "domains" / name / "README.md").read_text(encoding="utf-8")


def lines_of(readme: str) -> list[str]:
    """What stands indented in a page, without the indentation."""
    return [line.removeprefix("    ") for line in readme.splitlines() if line.startswith("    ")]


def publish(typed: Typed, name: str, events: list[str]) -> None:
    file = typed.root / "events.jsonl"
    file.write_text("\n".join(events) + "\n", encoding="utf-8")
    typed("publish", name.replace("/", "."), str(file))


def test_every_kind_is_checked_applied_and_landed_as_it_was_written(typed: Typed) -> None:
    typed("new", NAMES[Kind.EVENT])
    typed("new", NAMES[Kind.CHANGE_STREAM], "--kind", "change-stream", "--key", "customer_id")
    typed("new", NAMES[Kind.DERIVED], "--from", EXAMPLE_PRODUCT, "--from", "shop.returns")
    typed("check")
    typed("apply")
    typed("publish", EXAMPLE_PRODUCT, str(typed.root / EXAMPLE_EVENTS))
    for name in NAMES.values():
        (event,) = [line for line in lines_of(readme_of(typed, name)) if line.startswith("{")]
        publish(typed, name, [event])
    typed("sink", "--until-caught-up")
    assert typed.rows("SELECT id FROM shop.returns") == [{"id": "1"}]
    assert typed.rows("SELECT id FROM shop.refunds") == [{"id": "1"}]
    assert typed.rows("SELECT count(*) AS n FROM shop.orders") == [{"n": 10}]
    assert typed.rows("SELECT customer_id, op, after.status AS status FROM crm.customers") == [
        {"customer_id": "1", "op": "create", "status": "new"}
    ]


def change(customer: str, op: str, status: str | None, minute: int) -> str:
    after = None if status is None else {"status": status}
    at = f"2026-11-23T08:{minute:02d}:00Z"
    return json.dumps({"customer_id": customer, "op": op, "changed_at": at, "after": after})


def test_the_query_in_a_change_stream_s_readme_gives_what_there_is_now(typed: Typed) -> None:
    typed("new", "crm/customers", "--kind", "change-stream", "--key", "customer_id")
    typed("apply")
    customers = [f"c{number}" for number in range(20)]
    first = [change(customer, "create", "new", 0) for customer in customers]
    second = [change(customer, "update", f"level {number}", 1) for number, customer in enumerate(customers)]
    # c0 goes, c1 goes and comes again; times that do not rise must not matter: the order in the topic does.
    third = [
        change("c0", "delete", None, 2),
        change("c1", "delete", None, 2),
        change("c1", "create", "back", 0),
        change("c2", "update", "late", 0),
    ]
    publish(typed, "crm/customers", first + second)
    typed("sink", "--until-caught-up")
    publish(typed, "crm/customers", third)
    typed("sink", "--until-caught-up")
    readme = readme_of(typed, "crm/customers")
    (query,) = re.findall(r"(?ms)^    (SELECT customer_id.*?)\n\n", readme)
    rows = {row["customer_id"]: row["status"] for row in typed.rows(query)}
    assert rows == {f"c{number}": f"level {number}" for number in range(3, 20)} | {"c1": "back", "c2": "late"}
    # The table is the history: nothing of it is gone.
    assert typed.rows("SELECT count(*) AS n FROM crm.customers") == [{"n": 44}]
