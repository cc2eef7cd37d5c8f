"""``headrace verify`` on real Kafka: every fault is planted by hand, in topics and tables that no sink has touched."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from headrace.governance.marks import Gone
from headrace.governance.verify import Audit, verify
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import NotApplied, ProductStopped, Unavailable
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.apply import apply
from headrace.selfserve.init import init_mesh
from headrace.selfserve.main import main
from headrace.selfserve.stack import stack_of
from headrace.sinks.attempts import land
from headrace.sinks.batch import Letter
from headrace.sinks.dead_letters.table import LetterTable
from headrace.sinks.draft import Draft
from headrace.streams.admin import Admin
from headrace.streams.ledger import Accepted, Ledger, Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from headrace.governance.marks import Spans
    from headrace.schemas.mesh import Mesh

ORDERS = "shop.orders"
# Where a test's events begin. Not long ago, because the broker deletes what is older than the contract's 30 days.
EPOCH_MS = int((dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)).timestamp() * 1000)
WAIT_S = 60.0
FOUND = ("missing", "pending", "doubled", "foreign", "skipped")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("verify") / "mesh"
    init_mesh(folder)
    contract = folder / "domains/shop/orders/contract.odcs.yaml"
    contract.write_text(contract.read_text().replace("kafka.partitions, value: 4", "kafka.partitions, value: 2"))
    stack = stack_of(load_mesh(folder).environment)
    stack.up(die_with_parent=True, progress=lambda _: None)
    yield folder
    stack.down(lambda _: None)


@dataclass(frozen=True)
class Bench:
    """A product's topic and table, to be filled by hand."""

    mesh: Mesh

    @property
    def config(self) -> dict[str, str]:
        return self.mesh.environment.kafka_config()

    @property
    def topic(self) -> str:
        return self.mesh.product(ORDERS).topic

    def produce(
        self, offsets: Sequence[int], *, partition: int = 0, commit: bool = True, since_ms: int = EPOCH_MS
    ) -> None:
        """Write events in one transaction, each with its offset as its time. The end takes an offset of its own."""
        producer = Producer({**self.config, "transactional.id": f"test-{self.topic}-{partition}"})
        producer.init_transactions(WAIT_S)
        producer.begin_transaction()
        for offset in offsets:
            producer.produce(self.topic, b"event", partition=partition, timestamp=since_ms + offset)
        producer.flush(WAIT_S)
        if commit:
            producer.commit_transaction(WAIT_S)
        else:
            producer.abort_transaction(WAIT_S)

    def letter(self, offset: int, *, topic_id: str | None = None, partition: int = 0) -> None:
        headers = {
            "headrace.topic-id": topic_id or Admin(self.config).topic(self.topic).id,
            "headrace.partition": str(partition),
            "headrace.offset": str(offset),
        }
        producer = Producer(self.config)
        producer.produce(
            f"{self.topic}.dlq", b"event", headers=[(name, text.encode()) for name, text in headers.items()]
        )
        assert producer.flush(WAIT_S) == 0

    def append(self, *offsets: int, partition: int = 0, generation: int = 1, since_ms: int = EPOCH_MS) -> None:
        """Put rows into the table, as a sink would."""
        product = self.mesh.product(ORDERS)
        table = load_table(open_catalog(self.mesh.environment, self.mesh.domain_of(product)), product)
        schema = table.schema().as_arrow()
        rows = []
        for offset in offsets:
            known: dict[str, object] = {
                "_kafka_partition": partition,
                "_kafka_offset": offset,
                "_kafka_timestamp": dt.datetime.fromtimestamp((since_ms + offset) / 1000, dt.UTC),
                "_schema_id": 1,
                "_generation": generation,
            }
            rows.append({field.name: known.get(field.name, _some(field)) for field in schema})
        table.append(pa.Table.from_pylist(rows, schema=schema))

    def record(self, *, topic_id: str | None = None, generation: int = 1, accepted: Sequence[Accepted] = ()) -> None:
        """Put a ledger into the table, whose positions say nothing that is true."""
        product = self.mesh.product(ORDERS)
        catalog = open_catalog(self.mesh.environment, self.mesh.domain_of(product))
        wrong = {0: Position(10**9, 10**9)}
        known = topic_id or Admin(self.config).topic(self.topic).id
        ledger = Ledger(known, generation, wrong, {}, {}, {0: accepted})
        assert land(catalog, product, lambda _: Draft(ledger)) is not None

    def verify(self, tell: Callable[[str], None] = lambda _: None) -> Audit:
        return verify(self.mesh, [self.mesh.product(ORDERS)], tell)

    def found(self, tell: Callable[[str], None] = lambda _: None) -> Mapping[int, Mapping[str, object]]:
        """What is not nothing, by partition, in the current generation."""
        (product,) = self.verify(tell).products
        assert product.fault is None
        assert product.holds == all(verdict.holds for verdict in product.verdicts)
        current = max(verdict.generation for verdict in product.verdicts)
        return {
            verdict.partition: {
                name: getattr(verdict, name)
                for name in ("dead_lettered", "beyond_retention", "newer")
                if getattr(verdict, name)
            }
            | {name: _offsets(getattr(verdict, name)) for name in FOUND if getattr(verdict, name)}
            for verdict in product.verdicts
            if verdict.generation == current
        }


def _offsets(found: Spans) -> list[int]:
    return [offset for first, last in found.kept for offset in range(first, last + 1)]


def _some(field: pa.Field) -> object:
    if field.nullable:
        return None
    return "x" if field.type in {pa.string(), pa.large_string()} else 0


@pytest.fixture
def bench(root: Path, request: pytest.FixtureRequest) -> Bench:
    """A topic of the test's own, and an empty table."""
    name = "".join(character for character in request.node.name.lower() if character.isalnum())[:40]
    settings = root / "mesh.yaml"
    lines = [line for line in settings.read_text().splitlines() if "topic_prefix" not in line]
    settings.write_text("\n".join([*lines, f"    topic_prefix: {name}.", ""]))
    mesh = load_mesh(root)
    apply(mesh, lambda _: None)
    product = mesh.product(ORDERS)
    open_catalog(mesh.environment, mesh.domain_of(product)).drop_table(("shop", "orders"))
    apply(mesh, lambda _: None)
    return Bench(mesh)


def test_all_is_well_among_aborted_events_and_control_records(bench: Bench) -> None:
    bench.produce([0, 1, 2])  # 3 is the transaction's end
    bench.produce([4, 5], commit=False)  # 6 too
    bench.produce([7])
    bench.produce([0], partition=1)
    bench.append(0, 1, 2, 7)
    bench.append(0, partition=1)
    audit = bench.verify()
    assert audit.holds
    assert [(v.partition, v.generation, v.events, v.rows) for v in audit.products[0].verdicts] == [
        (0, 1, 4, 4),
        (1, 1, 1, 1),
    ]


def test_missing_pending_doubled_and_foreign_rows(bench: Bench) -> None:
    bench.produce(range(6))
    bench.produce([7], commit=False)
    bench.append(0, 2, 2, 7, 3)
    bench.append(0, partition=9)
    assert bench.found() == {
        0: {"missing": [1], "pending": [4, 5], "doubled": [2], "foreign": [7]},
        1: {},
        9: {"foreign": [0]},
    }


def test_dead_letters_count_once_for_this_topic_and_the_table_wins(bench: Bench) -> None:
    bench.produce(range(4))
    bench.append(0, 3)
    bench.letter(1)
    bench.letter(1)
    bench.letter(3)
    bench.letter(2, topic_id="another-topic")
    assert bench.found()[0] == {"dead_lettered": 1, "missing": [2]}


def test_letters_that_their_topic_has_forgotten_are_told_by_their_table(bench: Bench) -> None:
    bench.produce(range(6))
    bench.append(0, 2, 5)
    bench.letter(1)
    product = bench.mesh.product(ORDERS)
    register = LetterTable(open_catalog(bench.mesh.environment, bench.mesh.domain_of(product)), product)
    topic_id = Admin(bench.config).topic(bench.topic).id
    register.send(
        [Letter(0, offset, 1, "undecodable", b"k", b"v") for offset in (1, 3)], Ledger.begin(topic_id, {0: 0})
    )
    register.send([Letter(0, 4, 1, "undecodable", b"k", b"v")], Ledger.begin("another-topic", {0: 0}))
    assert bench.found() == {0: {"dead_lettered": 1, "missing": [3, 4]}, 1: {}}, "the topic is whole, and has no more"
    places = [TopicPartition(f"{bench.topic}.dlq", 0, 1)]
    admin = AdminClient({"bootstrap.servers": bench.config["bootstrap.servers"]})
    for future in admin.delete_records(places).values():
        future.result(WAIT_S)
    assert bench.found() == {0: {"dead_lettered": 2, "missing": [4]}, 1: {}}
    bench.letter(4)
    assert bench.found() == {0: {"dead_lettered": 3}, 1: {}}


def test_rows_whose_events_kafka_has_deleted(bench: Bench) -> None:
    bench.produce(range(5))
    bench.append(*range(5))
    admin = admin_of(bench)
    for future in admin.delete_records([TopicPartition(bench.topic, 0, 3)]).values():
        future.result(WAIT_S)
    assert bench.found() == {0: {"beyond_retention": 3}, 1: {}}
    verdict, _ = bench.verify().products[0].verdicts
    assert (verdict.start, verdict.gone, verdict.not_known) == (3, Gone(3, 3, 0, 2), 0)


def test_a_topic_made_anew_does_not_pass_for_the_old_one(bench: Bench) -> None:
    bench.produce(range(3))
    bench.append(*range(3))
    assert bench.verify().holds
    made_anew(bench)
    bench.produce(range(3), since_ms=EPOCH_MS + 60_000)
    assert bench.found()[0] == {"foreign": [0, 1, 2], "pending": [0, 1, 2]}
    bench.append(*range(3), generation=2, since_ms=EPOCH_MS + 60_000)
    audit = bench.verify()
    assert audit.holds
    assert [(v.generation, v.partition, v.events, v.rows) for v in audit.products[0].verdicts] == [
        (1, 0, None, 3),
        (2, 0, 3, 3),
        (2, 1, 0, 0),
    ]


def test_after_a_new_topic_was_accepted_it_is_the_one_to_answer_for(bench: Bench) -> None:
    bench.produce(range(3))
    bench.append(*range(3))
    made_anew(bench)
    bench.produce([0, 1], since_ms=EPOCH_MS + 60_000)
    bench.record(generation=2)
    audit = bench.verify()
    assert [(v.generation, v.partition, v.events, v.rows, v.pending.count) for v in audit.products[0].verdicts] == [
        (1, 0, None, 3, 0),
        (2, 0, 2, 0, 2),
        (2, 1, 0, 0, 0),
    ]


def test_a_table_that_follows_a_topic_that_is_gone_is_a_fault(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.produce([0])
    bench.append(0)
    bench.record(topic_id="AAAAAAAAAAAAAAAAAAAAAA")
    (audited,) = bench.verify().products
    assert isinstance(audited.fault, ProductStopped)
    assert not audited.holds
    assert main(["--mesh", str(bench.mesh.root), "verify", ORDERS]) == 1
    shown = capsys.readouterr().err
    assert "made anew" in shown
    assert f"headrace accept-topic {ORDERS}" in shown


def test_what_an_operator_skipped_is_on_record_and_positions_are_not_believed(bench: Bench) -> None:
    bench.produce(range(7))
    bench.append(0, 2, 6)
    bench.letter(4)
    skipped = Accepted(1, 5, EPOCH_MS // 1000)
    bench.record(accepted=[skipped])
    assert bench.found()[0] == {"skipped": [1, 3], "dead_lettered": 1, "missing": [5]}
    bench.append(5)
    (audited,) = bench.verify().products
    assert audited.holds
    assert audited.accepted == {0: (skipped,)}


def admin_of(bench: Bench) -> AdminClient:
    """A client; keep it until its futures are done."""
    return AdminClient({name: str(value) for name, value in bench.config.items()})


def deleted(bench: Bench) -> None:
    admin = admin_of(bench)
    for future in admin.delete_topics([bench.topic]).values():
        future.result(WAIT_S)


def made_anew(bench: Bench) -> None:
    """Delete the topic and make it again; the broker needs a moment until the name is free."""
    before = Admin(bench.config).topic(bench.topic).id
    deleted(bench)
    deadline = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=WAIT_S)
    while dt.datetime.now(dt.UTC) < deadline:
        apply(bench.mesh, lambda _: None)
        found = Admin(bench.config).find(bench.topic).get(bench.topic)
        if found is not None and found.id != before:
            return
    pytest.fail("the topic did not come back")


def test_events_and_rows_that_come_meanwhile_are_not_judged(bench: Bench) -> None:
    bench.produce([0, 1])
    bench.append(0, 1)
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if len(told) == 1:  # before the table is read, behind the ends that were noted
            bench.produce([3, 4])
            bench.append(3)

    assert bench.found(tell) == {0: {"newer": 1}, 1: {}}
    assert bench.found() == {0: {"pending": [4]}, 1: {}}


def test_rows_of_a_partition_that_was_added_meanwhile_are_not_judged(bench: Bench) -> None:
    bench.produce([0, 1])
    bench.append(0, 1)
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if len(told) == 1:  # before the table is read, behind the look at the topic
            admin = AdminClient({**bench.config})
            admin.create_partitions([NewPartitions(bench.topic, 3)])[bench.topic].result(WAIT_S)
            bench.produce([0, 1], partition=2)
            bench.append(0, 1, partition=2)

    assert bench.found(tell) == {0: {}, 1: {}, 2: {"newer": 2}}
    assert bench.found() == {0: {}, 1: {}, 2: {}}


def test_rows_that_no_sink_could_have_written_prove_nothing(bench: Bench) -> None:
    bench.produce([0, 1])
    bench.append(0, 1)
    bench.record()
    assert bench.verify().holds
    bench.append(-5)
    bench.append(0, partition=7)
    bench.append(0, partition=-1)
    bench.append(-1, partition=-1, generation=-1)
    bench.append(0, generation=0)
    bench.append(3, generation=9)
    audit = bench.verify()
    assert not audit.holds
    strange = {(v.generation, v.partition): v.foreign.count for v in audit.products[0].verdicts if v.foreign}
    assert strange == {(1, 0): 1, (1, 7): 1, (1, -1): 1, (-1, -1): 1, (0, 0): 1, (9, 0): 1}
    held = {(v.generation, v.partition): v.held for v in audit.products[0].verdicts if v.held}
    assert held == {(1, 0): 2}


def test_a_letter_of_an_absurd_place_is_none(bench: Bench) -> None:
    bench.produce([0, 1])
    bench.append(0)
    bench.letter(1)
    bench.letter(10**30)
    bench.letter(-1)
    bench.letter(1, partition=10**30)
    assert bench.found() == {0: {"dead_lettered": 1}, 1: {}}


def test_an_open_transaction_is_not_waited_for(bench: Bench) -> None:
    bench.produce([0])
    producer = Producer({**bench.config, "transactional.id": f"open-{bench.topic}"})
    producer.init_transactions(WAIT_S)
    producer.begin_transaction()
    producer.produce(bench.topic, b"event", partition=0)
    producer.flush(WAIT_S)
    bench.append(0)
    assert bench.found() == {0: {}, 1: {}}
    producer.abort_transaction(WAIT_S)


def test_many_events(bench: Bench) -> None:
    count = 50_000
    bench.produce(range(count))
    bench.append(*range(count - 10))
    assert bench.found()[0] == {"pending": list(range(count - 10, count))}


def test_a_topic_and_a_table_that_are_not_there(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    product = bench.mesh.product(ORDERS)
    open_catalog(bench.mesh.environment, bench.mesh.domain_of(product)).drop_table(("shop", "orders"))
    (audited,) = bench.verify().products
    assert isinstance(audited.fault, NotApplied)
    deleted(bench)
    assert main(["--mesh", str(bench.mesh.root), "verify"]) == 1
    shown = capsys.readouterr()
    assert "not proved: 1 product could not be checked" in shown.out
    assert "headrace apply" in shown.err
    assert "Traceback" not in shown.err


def test_the_command(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.produce([0, 1])
    bench.append(0)
    mesh = ["--mesh", str(bench.mesh.root)]
    assert main([*mesh, "verify", "--format", "json"]) == 1
    products = {product["product"]: product for product in json.loads(capsys.readouterr().out)["products"]}
    assert products[ORDERS]["partitions"][0]["pending"] == 1
    assert products.keys() == {ORDERS, "governance.findings", "governance.observations"}
    bench.append(1)
    assert main([*mesh, "verify", ORDERS]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == ("proved: 2 events of 1 product, each in its table exactly once")


def test_a_broker_that_is_gone(tmp_path: Path) -> None:
    init_mesh(tmp_path / "mesh")
    mesh = load_mesh(tmp_path / "mesh")
    mesh.environment.state.mkdir(parents=True)
    # Port 9 is "discard", which nothing listens on.
    gone = {"bootstrap.servers": "127.0.0.1:9", "registry.url": "http://127.0.0.1:9"}
    folder = {"folder": str(mesh.environment.state.resolve())}
    (mesh.environment.state / "endpoints.json").write_text(json.dumps(gone | folder))
    with pytest.raises(Unavailable, match="Kafka does not answer") as error:
        verify(mesh, mesh.products, lambda _: None)
    assert error.value.where == "127.0.0.1:9"
