"""``headrace new``: what it writes passes the check, and what the check refuses leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from headrace.producers.values import json_reader, parse_json
from headrace.producers.wire import Encoder
from headrace.schemas.avro import Enum, optional_of
from headrace.schemas.documents import parse
from headrace.schemas.errors import MeshError, UserError
from headrace.schemas.mesh import load_mesh
from headrace.schemas.names import PART
from headrace.schemas.sql_words import ENGINE_CATALOGS, OWN_DOMAINS, RESERVED
from headrace.selfserve.blanks import scalar
from headrace.selfserve.init import init_mesh
from headrace.selfserve.kinds import Kind
from headrace.selfserve.main import main
from headrace.selfserve.new import Answers, place_of

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.errors import Fault

NAMES = st.from_regex(PART, fullmatch=True)
# One line as a person may type it: quotation marks, colons, brackets, YAML's and Markdown's own characters.
LINES = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=60).filter(str.isprintable)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "mesh"
    init_mesh(folder)
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "mesh"
    init_mesh(folder)
    return folder


def tree(root: Path) -> dict[str, bytes | None]:
    """Everything in a folder: texts by path, None for folders."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def test_a_product_of_a_domain_that_is_there(root: Path) -> None:
    before = tree(root)
    mesh = place_of("shop/returns", root).write(Answers())
    made = mesh.product("shop.returns")
    assert (made.contract.owner, made.contract.key, made.contract.status) == ("shop-team", ("id",), "draft")
    assert load_mesh(root).product("shop.returns") == made
    added = {path: data for path, data in tree(root).items() if before.get(path, b"") != data}
    assert set(added) == {
        f"domains/shop/returns{name}" for name in ("", "/contract.odcs.yaml", "/schema.avsc", "/README.md")
    }


def test_the_first_product_makes_its_domain(root: Path) -> None:
    answers = Answers(
        owner="loyalty-team",
        purpose="Points that an order earns: a tenth of its total",
        key="order_id",
        description="What customers get back",
        inputs=["shop.orders", "shop.orders", "governance.findings"],
    )
    mesh = place_of("loyalty.points", root).write(answers)
    made = mesh.product("loyalty.points")
    assert (mesh.domains["loyalty"].owner, mesh.domains["loyalty"].description) == (answers.owner, answers.description)
    assert (made.contract.owner, made.contract.purpose, made.contract.key) == (
        answers.owner,
        answers.purpose,
        ("order_id",),
    )
    inputs = [(str(found.product), found.version) for found in made.contract.inputs]
    assert inputs == [("shop.orders", "1.0.0"), ("governance.findings", "1.0.0")]
    readme = (root / "domains/loyalty/points/README.md").read_text()
    assert "a tenth of its total" in readme
    assert "Derived from shop.orders, governance.findings." in readme


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("key", ["id", "order_id", "Id", "select"])
def test_every_kind_passes_the_check_and_its_example_can_be_published(root: Path, kind: Kind, key: str) -> None:
    inputs = ["shop.orders"] if kind is Kind.DERIVED else []
    made = place_of("shop/returns", root).write(Answers(kind=kind, key=key, inputs=inputs)).product("shop.returns")
    assert load_mesh(root).product("shop.returns") == made
    assert made.contract.key == (key,)
    assert [str(each.product) for each in made.contract.inputs] == inputs
    readme = (root / "domains/shop/returns/README.md").read_text()
    (line,) = re.findall(r"^ {4}(\{.*\})$", readme, re.MULTILINE)
    _, value = Encoder(made, 7).encode(json_reader(made.schema.record)(parse_json(line)))
    assert value[:5] == b"\0\0\0\0\7"


def test_a_change_stream_tells_what_was_done_and_the_state_after_it(root: Path) -> None:
    made = place_of("shop/returns", root).write(Answers(kind=Kind.CHANGE_STREAM)).product("shop.returns")
    op, after = made.schema.at("op"), made.schema.at("after")
    assert op is not None
    assert isinstance(op.type, Enum)
    # A reader of this version takes a word of a later one for this.
    assert op.type.default in op.type.symbols
    assert after is not None
    assert optional_of(after.type)[1]
    assert made.contract.cleanup_policy == "delete"


def test_the_query_of_a_change_stream_quotes_what_sql_would_misread(root: Path) -> None:
    place_of("shop/returns", root).write(Answers(kind=Kind.CHANGE_STREAM, key="select"))
    readme = (root / "domains/shop/returns/README.md").read_text()
    assert 'SELECT "select", after.status' in readme
    assert 'PARTITION BY "select" ORDER BY' in readme


@pytest.mark.parametrize("name", ["operation", "state", "operation_state"])
def test_a_change_streams_own_types_take_no_products_name(root: Path, name: str) -> None:
    made = place_of(f"shop/{name}", root).write(Answers(kind=Kind.CHANGE_STREAM)).product(f"shop.{name}")
    assert made.contract.key == ("id",)


@pytest.mark.parametrize("kind", [Kind.EVENT, Kind.CHANGE_STREAM])
def test_a_product_of_any_kind_may_be_derived(root: Path, kind: Kind) -> None:
    answers = Answers(kind=kind, inputs=["shop.orders"])
    made = place_of("shop/returns", root).write(answers).product("shop.returns")
    assert [str(each.product) for each in made.contract.inputs] == ["shop.orders"]


def test_what_nobody_said_is_asked_for_in_the_files(root: Path) -> None:
    place = place_of("loyalty/points", root)
    mesh = place.write(Answers())
    assert place.unsaid(Answers()) == [
        ("purpose", "domains/loyalty/points/contract.odcs.yaml"),
        ("description", "domains/loyalty/domain.yaml"),
    ]
    assert all("to be said" in (root / file).read_text() for _, file in place.unsaid(Answers()))
    assert mesh.domains["loyalty"].owner == "loyalty-team"


def test_the_event_in_the_new_product_s_readme_can_be_published(root: Path) -> None:
    made = place_of("shop/returns", root).write(Answers(key="return_id")).product("shop.returns")
    readme = (root / "domains/shop/returns/README.md").read_text()
    (line,) = re.findall(r"^ {4}(\{.*\})$", readme, re.MULTILINE)
    key, value = Encoder(made, 7).encode(json_reader(made.schema.record)(parse_json(line)))
    assert (key, value[:5]) == (b"1", b"\0\0\0\0\7")


@settings(max_examples=40, deadline=None)
@given(NAMES, NAMES)
@example("no", "yes")
@example("x" * 63, "y" * 63)
@example("a_", "b__9")
@example("string", "record")
def test_every_name_that_is_not_reserved_gives_a_product_that_passes_the_check(
    shared: Path, domain: str, product: str
) -> None:
    assume(not {domain, product} & RESERVED and domain not in ENGINE_CATALOGS | OWN_DOMAINS)
    assume((domain, product) not in {("shop", "orders"), ("shop", "orders_dlq"), ("shop_orders", "dlq")})
    place = place_of(f"{domain}/{product}", shared)
    place.write(Answers())
    assert str(place.name) in map(str, (found.name for found in load_mesh(shared).products))
    remove(place.folder if domain == "shop" else place.folder.parent)


@settings(max_examples=40, deadline=None)
@given(LINES, LINES, LINES)
@example("yes: [no]", "a # b", "'\"\\")
@example("1e3", ".5e3", "null")
@example("{x}", "%", "- a")
def test_whatever_a_person_says_is_what_the_contract_says(
    shared: Path, owner: str, purpose: str, description: str
) -> None:
    place = place_of("said/things", shared)
    mesh = place.write(Answers(owner=owner, purpose=purpose, description=description))
    made = mesh.product("said.things")
    try:
        assert made.contract.owner == mesh.domains["said"].owner == (owner.strip() or "said-team")
        assert made.contract.purpose == purpose.strip() or "to be said" in made.contract.purpose
        assert mesh.domains["said"].description == description.strip() or not description.strip()
    finally:
        remove(place.folder.parent)


@given(LINES)
def test_a_scalar_is_read_as_the_text_that_it_was(text: str) -> None:
    faults: list[Fault] = []
    found = parse(f"text: {scalar(text)}\nflow: [{{text: {scalar(text)}}}]\n".encode(), "x", faults)
    assert found is not None
    assert found.value == {"text": text, "flow": [{"text": text}]}
    assert not faults


BAD_NAMES = [
    ("shop/orders", "there already"),
    ("shop.orders", "there already"),
    ("shop/select", "reserved word"),
    ("table/x", "reserved word"),
    ("governance/x", "keeps this name"),
    ("headrace/x", "keeps this name"),
    ("main/x", "SQL engines keep"),
    ("shop/orders_dlq", "differ from those of shop.orders in . and _ only"),
    ("shop_orders/dlq", "differ from those of shop.orders in . and _ only"),
    ("Shop/x", "no name"),
    ("shop/orders.dlq", "no name"),
    ("shop/a/b", "no name"),
    ("../x", "no name"),
    ("/etc/x", "no name"),
    ("shop/../x", "no name"),
    ("shop", "no name"),
    ("shop/", "no name"),
    ("", "no name"),
    ("shop/" + "x" * 64, "no name"),
    ("shop/größe", "no name"),
    ("shop/x\n", "no name"),
]


@pytest.mark.parametrize(("name", "said"), BAD_NAMES)
def test_a_bad_name_is_one_error_and_nothing_is_written(
    root: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    before = tree(root)
    assert main(["--mesh", str(root), "new", name]) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert (shown.count("error: "), shown.count("next: ")) == (1, 1)
    assert tree(root) == before


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (Answers(key="order id"), "cannot be the key"),
        (Answers(key="occurred_at"), "cannot be the key"),
        (Answers(key="Occurred_At"), "cannot be the key"),
        (Answers(key="_kafka_offset"), "cannot be the key"),
        (Answers(key='x", "type": "long'), "cannot be the key"),
        (Answers(key="op", kind=Kind.CHANGE_STREAM), "cannot be the key"),
        (Answers(key="after", kind=Kind.CHANGE_STREAM), "cannot be the key"),
        (Answers(kind=Kind.DERIVED), "says what it is made from"),
        (Answers(inputs=["shop.order"]), "did you mean shop.orders"),
        (Answers(inputs=["shop.returns"]), "the mesh has no product"),
        (Answers(owner="a\x1b[31m"), "the owner is not a text of one line"),
        (Answers(purpose="two\nlines"), "the purpose is not a text of one line"),
        (Answers(description="x" * 501), "the description is not a text of one line"),
    ],
)
def test_a_bad_answer_is_one_error_and_nothing_is_written(root: Path, answers: Answers, said: str) -> None:
    before = tree(root)
    place = place_of("shop/returns" if answers.description is None else "other/returns", root)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        place.write(answers)
    assert error.value.hint
    assert tree(root) == before


@pytest.mark.parametrize("key", ["null", "true", "Id", "_x"])
def test_a_key_may_be_called_what_yaml_reads_otherwise(root: Path, key: str) -> None:
    assert place_of("shop/returns", root).write(Answers(key=key)).product("shop.returns").contract.key == (key,)


def test_a_domain_whose_storage_another_has_is_refused(root: Path) -> None:
    (root / "domains/shop/domain.yaml").write_text("owner: a\ndescription: b\nstorage: loyalty\n")
    before = tree(root)
    with pytest.raises(UserError, match="the storage lies inside"):
        place_of("loyalty/points", root)
    assert tree(root) == before


def test_a_mesh_with_faults_is_told_its_faults_first(root: Path) -> None:
    (root / "domains/shop/domain.yaml").write_text("owner: 7\n")
    before = tree(root)
    with pytest.raises(MeshError, match=r"domains/shop/domain\.yaml"):
        place_of("shop/returns", root)
    assert tree(root) == before


def test_faults_that_come_meanwhile_take_the_product_back(root: Path) -> None:
    place = place_of("loyalty/points", root)
    (root / "domains/shop/orders/schema.avsc").write_text("{")
    before = tree(root)
    with pytest.raises(MeshError, match=r"schema\.avsc"):
        place.write(Answers())
    assert tree(root) == before


def test_a_mesh_without_a_domain_gets_its_first(root: Path) -> None:
    remove(root / "domains")
    before = tree(root)
    with pytest.raises(UserError, match="keeps this name"):
        place_of("governance/x", root)
    with pytest.raises(UserError, match="the mesh has no product"):
        place_of("stock/levels", root).write(Answers(inputs=["shop.orders"]))
    assert tree(root) == before
    assert len(place_of("stock/levels", root).write(Answers()).products) == 1


def test_a_mesh_without_a_domain_tells_the_faults_of_its_other_files(root: Path) -> None:
    remove(root / "domains")
    (root / "policies/pii.yaml").unlink()
    with pytest.raises(MeshError, match=r"policies/pii\.yaml: the file is missing"):
        place_of("stock/levels", root)


def test_a_file_in_the_way_is_left_alone(root: Path) -> None:
    (root / "domains/shop/returns").write_text("mine")
    (root / "domains/stock").write_text("mine")
    before = tree(root)
    for name in ("shop/returns", "stock/levels"):
        with pytest.raises(UserError) as error:
            place_of(name, root).write(Answers())
        assert error.value.hint
    assert tree(root) == before


def test_what_a_killed_run_leaves_is_seen_by_nobody(root: Path) -> None:
    left = root / "domains/.new-left/domains/shop/returns"
    left.mkdir(parents=True)
    (left / "contract.odcs.yaml").write_text("half")
    assert len(load_mesh(root).products) == 1
    assert len(place_of("shop/returns", root).write(Answers()).products) == 2


@pytest.mark.parametrize("name", ["shop/returns", "loyalty/points"])
def test_of_several_at_once_one_makes_it(root: Path, name: str) -> None:
    def one(number: int) -> str:
        try:
            return place_of(name, root).write(Answers(owner=f"team-{number}")).name
        except UserError as error:
            return error.what

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(one, range(8)))
    assert said.count("mesh") == 1
    assert said.count(f"{name.replace('/', '.')} is there already") == 7
    assert load_mesh(root).product(name.replace("/", ".")).contract.owner in {f"team-{number}" for number in range(8)}
    assert not list((root / "domains").glob(".new-*"))


def test_a_domain_that_somebody_makes_meanwhile_is_not_replaced(root: Path) -> None:
    places = [place_of(name, root) for name in ("loyalty/points", "loyalty/cards")]
    places[0].write(Answers())
    before = tree(root)
    with pytest.raises(UserError, match="the domain loyalty is there by now") as error:
        places[1].write(Answers())
    assert error.value.hint == "run the same command again"
    assert tree(root) == before
    assert len(place_of("loyalty/cards", root).write(Answers()).domains["loyalty"].products) == 2


# Bytes that a file may have: each limit stops the run at another file.
@pytest.mark.parametrize("limit", [0, 100, 600, 700, 800])
def test_a_full_disk_leaves_nothing_half_written(root: Path, limit: int) -> None:
    before = tree(root)
    code = (
        "import resource, sys; from headrace.selfserve.main import main;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        f"sys.exit(main(['--mesh', {str(root)!r}, 'new', 'loyalty/points', '--purpose', 'x' * 400]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1, ran.stderr
    assert "cannot be written" in ran.stderr
    assert tree(root) == before


def test_options_say_all_of_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--owner", "points", "--purpose", "Points: earned", "--key", "order_id", "--from", "shop.orders"]
    assert main(["--mesh", str(root), "new", "loyalty/points", *words]) == 0
    shown = capsys.readouterr().err
    assert "made loyalty.points in domains/loyalty/points" in shown
    assert "owner points, key order_id" in shown
    assert "still to be said: description, in domains/loyalty/domain.yaml" in shown
    _, _, command = shown.splitlines()[-1].partition("then: ")
    check, apply = (shlex.split(each) for each in command.split(" && "))
    assert check == ["headrace", "--mesh", str(root), "check"]
    assert apply == [*check[:-1], "apply"]
    assert main(check[1:]) == 0


def on_a_terminal(root: Path, words: list[str], typed: str) -> tuple[int, str]:
    """Run ``headrace new`` on a terminal of its own where a person types; return its status and what was shown."""
    terminal, side = pty.openpty()
    try:
        os.write(terminal, typed.encode())
        try:
            ran = subprocess.Popen(
                [sys.executable, "-m", "headrace.selfserve.main", "--mesh", str(root), "new", *words],
                stdin=side,
                stdout=side,
                stderr=side,
            )
        finally:
            os.close(side)
        try:
            status = ran.wait(60)
        finally:
            ran.kill()
        return status, everything_on(terminal)
    finally:
        os.close(terminal)


def everything_on(terminal: int) -> str:
    """Return what was shown on a terminal whose other side is closed: the kernel hands it over piece by piece."""
    shown = b""
    # An error is how a terminal's output ends.
    with suppress(OSError):
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    return shown.decode()


def test_on_a_terminal_it_asks(root: Path) -> None:
    typed = "What customers get back\n\nPoints that an order earns\norder_id\n"
    status, shown = on_a_terminal(root, ["loyalty/points", "--from", "shop.orders"], typed)
    assert status == 0, shown
    mesh = load_mesh(root)
    made = mesh.product("loyalty.points")
    assert mesh.domains["loyalty"].description == "What customers get back"
    assert (made.contract.owner, made.contract.key) == ("loyalty-team", ("order_id",))
    assert made.contract.purpose == "Points that an order earns"
    assert len(made.contract.inputs) == 1
    assert "[loyalty-team]" in shown
    assert "still to be said" not in shown


QUESTIONS = {
    "--kind": "Which kind of product is it?",
    "--owner": "Which team answers for the product?",
    "--purpose": "What is shop.returns for",
    "--key": "Which field is the key?",
}


@pytest.mark.parametrize("missing", [None, *QUESTIONS])
def test_on_a_terminal_it_asks_for_what_is_missing_and_for_nothing_else(root: Path, missing: str | None) -> None:
    given = {"--kind": "event", "--owner": "x-team", "--purpose": "to be tested", "--key": "order_id"}
    words = [word for name, value in given.items() if name != missing for word in (name, value)]
    status, shown = on_a_terminal(root, ["shop/returns", *words], f"{given[missing]}\n" if missing else "")
    assert status == 0, shown
    assert [name for name, question in QUESTIONS.items() if question in shown] == ([missing] if missing else [])
    made = load_mesh(root).product("shop.returns").contract
    assert (made.owner, made.purpose, made.key) == ("x-team", "to be tested", ("order_id",))


def test_on_a_terminal_the_kind_is_asked_until_it_is_one(root: Path) -> None:
    typed = "table\nderived\nshop.orders\n\nto be tested\n\n"
    status, shown = on_a_terminal(root, ["shop/returns"], typed)
    assert status == 0, shown
    assert "say event, change-stream or derived" in shown
    made = load_mesh(root).product("shop.returns").contract
    assert [str(each.product) for each in made.inputs] == ["shop.orders"]


def test_on_a_terminal_a_bad_name_is_told_before_any_question(root: Path) -> None:
    status, shown = on_a_terminal(root, ["shop/select"], "")
    assert status == 1
    assert "reserved word" in shown
    assert "?" not in shown


def test_who_ends_the_questions_has_written_nothing(root: Path) -> None:
    before = tree(root)
    status, shown = on_a_terminal(root, ["loyalty/points"], "What customers get back\n\x04")
    assert status == 130, shown
    assert "Traceback" not in shown
    assert tree(root) == before


def remove(folder: Path) -> None:
    """Remove a folder and all that is in it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
