"""Files that are wrong, hostile or damaged: each fault is told once, with its place, and nothing else happens."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.schemas.errors import MeshError
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.init import init_mesh
from headrace.selfserve.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.schemas.errors import Fault

CONTRACT = "domains/shop/orders/contract.odcs.yaml"
SCHEMA = "domains/shop/orders/schema.avsc"
FILES = ("mesh.yaml", "policies/pii.yaml", "domains/shop/domain.yaml", CONTRACT, SCHEMA)
YAML_FILES = FILES[:-1]
TEN_MB = 10_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "mesh"
    init_mesh(folder)
    return folder


def faults_of(root: Path) -> tuple[Fault, ...]:
    with pytest.raises(MeshError) as caught:
        load_mesh(root)
    return tuple(caught.value.faults)


def only_fault(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one fault that a person sees, and that it is all they see."""
    assert main(["--mesh", str(root), "check"]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("error: ")) == ("", 1), shown.err
    assert "Traceback" not in shown.err
    (fault,) = faults_of(root)
    return str(fault)


def edit(path: Path, *pairs: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")


def test_every_fault_of_a_contract_is_told_in_one_run_with_its_line(root: Path) -> None:
    edit(
        root / CONTRACT,
        ("version: 1.0.0", "version: 1"),
        ("status: active", "staus: active"),
        ("  name: shop-team", "  name: [shop-team]"),
        ("url: schema.avsc}", "url: schema.avsc, urn: x}"),
        ("- name: order_id", "- name: order_ids"),
        ("value: 10, unit: s", "value: ten, unit: s"),
        ("unit: d", "unit: moons"),
        ("value: 4}", "value: 0}"),
        ("value: BACKWARD", "value: SIDEWAYS"),
    )
    found = {(fault.where.removeprefix(f"{CONTRACT}:").split(":")[0], fault.what) for fault in faults_of(root)}
    assert found == {
        ("1", "status is missing"),
        ("5", "version: a text is wanted here"),
        ("6", "unknown key staus"),
        ("11", "name: a text is wanted here"),
        ("16", "unknown key urn"),
        ("19", "the Avro schema has no such field"),
        ("22", "latency is a number above 0"),
        ("23", "retention needs a unit"),
        ("25", "kafka.partitions is a whole number from 1 to 1000"),
        ("26", "avro.compatibility is none of the registry's levels"),
    }


def test_faults_of_all_files_are_told_together(root: Path) -> None:
    edit(root / "mesh.yaml", ("stack: embedded", "stack: embeded"))
    edit(root / "policies/pii.yaml", ("default: replace-with-null", "default: replace"))
    edit(root / "domains/shop/domain.yaml", ("owner: shop-team", "owner: 7"))
    edit(root / CONTRACT, ("version: 1.0.0", "version: 1"), ("value: 4}", "value: 0}"))
    shutil.copytree(root / "domains/shop/orders", root / "domains/shop/select")
    found = {fault.where.split(":")[0] for fault in faults_of(root)}
    assert found == {*YAML_FILES, "domains/shop/select", "domains/shop/select/contract.odcs.yaml"}


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all that stands in a document, without custom values, which may be of any kind."""
    if path:
        yield path
    if path[-1:] == ("value",):
        return
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from paths_of(inner, (*path, key))


def with_value(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = with_value(copy[path[0]], path[1:], value)
    return copy


# Each example puts the contract back.
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_value_of_the_wrong_kind_hides_no_other_fault(root: Path, data: st.DataObject) -> None:
    contract = root / CONTRACT
    text = contract.read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    document["customProperties"][0]["value"] = 0
    path = data.draw(st.sampled_from([each for each in paths_of(document) if each[0] != "customProperties"]))
    try:
        wrong = with_value(document, path, {"no": ["such", {"thing": None}]})
        contract.write_text(yaml.safe_dump(wrong, sort_keys=False), encoding="utf-8")
        found = faults_of(root)
    finally:
        contract.write_text(text, encoding="utf-8")
    said = {fault.what for fault in found}
    assert "kafka.partitions is a whole number from 1 to 1000" in said
    assert len(said) > 1
    assert all(fault.where.startswith(f"{CONTRACT}:") for fault in found)


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_ten_megabytes_is_refused_before_it_is_read(
    root: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    with (root / file).open("a", encoding="utf-8") as large:
        large.write("# more\n" * (TEN_MB // 7) if file != SCHEMA else " " * TEN_MB)
    fault = only_fault(root, capsys)
    assert fault.startswith(f"{file}: the ")
    assert " is larger than 1" in fault


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("file", YAML_FILES)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, "more than 20,000 values, aliases written out"),
        ("a: &a [*a]\n", "this alias has no finished anchor before it"),
        ("a: " + "[" * 100_000, "nested deeper than 64 levels"),
        ("a: " + "{b: " * 100_000, "nested deeper than 64 levels"),
        ("a: !!python/object/apply:os.system [true]\n", "tags are not supported"),
        ("<<: {a: 1}\n", "merge keys are not supported"),
        ("a: 1\n---\nb: 2\n", "a second document starts here"),
        ("\u0000", "a control character"),
        ("", "the file is empty"),
    ],
    ids=["bomb", "self", "lists", "mappings", "tag", "merge", "two", "control", "empty"],
)
def test_yaml_that_is_a_trap_is_one_clear_error(
    root: Path, capsys: pytest.CaptureFixture[str], file: str, content: str, said: str
) -> None:
    (root / file).write_text(content, encoding="utf-8")
    assert main(["--mesh", str(root), "check"]) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert shown.count(f"where: {file}") >= 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"type": ' * 100_000, "nested deeper than"),
        ("[" * 100_000, "nested deeper than"),
        (json.dumps({"type": "record", "name": "A", "fields": [{"name": "a", "type": "A"}]}), "recursive"),
        ('{"type": "record", "name": "A", "fields": [', "not JSON"),
        ("NaN", "not JSON"),
        ("9" * 10_000, "not JSON"),
        ('{"type": "record", "name": "A", "doc": "\\ud83d", "fields": []}', "not UTF-8"),
    ],
    ids=["objects", "lists", "recursive", "cut", "nan", "digits", "surrogate"],
)
def test_a_schema_that_is_a_trap_is_one_clear_error(
    root: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    (root / SCHEMA).write_text(content, encoding="utf-8")
    fault = only_fault(root, capsys)
    assert fault.startswith(f"{SCHEMA}: ")
    assert said in fault


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("../../../../etc/hostname", "the path of the Avro schema leaves the mesh"),
        ("/etc/hostname", "the path of the Avro schema leaves the mesh"),
        ("file:///etc/hostname", "the path of the Avro schema leaves the mesh"),
        ("..", "this is not a file"),
        (".", "this is not a file"),
        ("x" * 5000, "the file cannot be read"),
        ("x/" * 3000, "the file cannot be read"),
        ("contract.odcs.yaml", "this is not JSON"),
        ("nowhere.avsc", "the file is missing"),
        ("\\u2028\\x1b[31m", "the file is missing"),
    ],
)
def test_a_path_of_a_schema_that_leads_nowhere_is_one_clear_error(
    root: Path, capsys: pytest.CaptureFixture[str], url: str, said: str
) -> None:
    edit(root / CONTRACT, ("url: schema.avsc", f'url: "{url}"'))
    fault = only_fault(root, capsys)
    assert said in fault
    assert fault.isprintable()


def test_links_that_leave_the_mesh_are_refused_wherever_they_stand(root: Path, tmp_path: Path) -> None:
    for file in FILES:
        outside = tmp_path / "outside" / file
        outside.parent.mkdir(parents=True, exist_ok=True)
        (root / file).rename(outside)
        (root / file).symlink_to(outside)
    said = {fault.where.split(":")[0]: fault.what for fault in faults_of(root)}
    expected = dict.fromkeys(YAML_FILES, "this link leads out of the mesh")
    assert {**said, **expected} == said
    shutil.rmtree(root / "domains")
    (root / "domains").symlink_to(tmp_path / "outside" / "domains")
    assert any("leads out" in fault.what for fault in faults_of(root))


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("domains/shop/returns", "domains/shop/orders"),
        ("domains/store", "domains/shop"),
        ("domains/shop/shop", "domains"),
    ],
)
def test_a_product_that_a_link_shows_twice_is_one_fault(
    root: Path, capsys: pytest.CaptureFixture[str], link: str, target: str
) -> None:
    (root / link).symlink_to(root / target)
    assert only_fault(root, capsys).startswith(f"{link}: this link shows a domain or product a second time")


def test_a_product_s_folder_may_be_a_link_to_another_place_of_the_mesh(root: Path) -> None:
    (root / "kept").mkdir()
    (root / "domains/shop/orders").rename(root / "kept/orders")
    (root / "domains/shop/orders").symlink_to(root / "kept/orders")
    assert [str(product.name) for product in load_mesh(root).products] == ["shop.orders"]


def copied(root: Path, name: str, *, identity: str | None = None) -> Path:
    """A copy of shop.orders under another name, which its contract says as well."""
    domain, _, product = name.partition("/")
    folder = root / "domains" / domain / product
    shutil.copytree(root / "domains/shop/orders", folder)
    if not (folder.parent / "domain.yaml").exists():
        (folder.parent / "domain.yaml").write_text("owner: a\ndescription: b\n", encoding="utf-8")
    said_domain, _, said_product = (identity or name).partition("/")
    edit(
        folder / "contract.odcs.yaml",
        ("id: shop.orders", f"id: {said_domain}.{said_product}"),
        ("name: orders", f"name: {said_product}"),
        ("domain: shop", f"domain: {said_domain}"),
        ("- name: orders", f"- name: {said_product}"),
        ("physicalName: shop.orders", f"physicalName: {said_domain}.{said_product}"),
    )
    return folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shop/Orders", "this is no name of a product"),
        ("shop/orders-2", "this is no name of a product"),
        ("shop/größe", "this is no name of a product"),
        ("shop/2nd", "this is no name of a product"),
        ("shop/_hidden", "this is no name of a product"),
        ("shop/" + "x" * 64, "this is no name of a product"),
        ("shop/a b", "this is no name of a product"),
        ("shop/select", "select is a reserved word of SQL"),
        ("shop/orders_dlq", "its topics differ from those of shop.orders in . and _ only"),
        ("Shop/orders", "this is no name of a domain"),
        ("my.shop/orders", "this is no name of a domain"),
        ("table/orders", "table is a reserved word of SQL"),
        ("main/orders", "SQL engines keep this name for themselves"),
        ("information_schema/orders", "SQL engines keep this name for themselves"),
        ("governance/orders", "headrace keeps this name for itself"),
    ],
)
def test_a_name_that_kafka_iceberg_or_sql_refuses_is_one_clear_error(
    root: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    copied(root, name)
    fault = only_fault(root, capsys)
    assert said in fault
    assert fault.startswith(f"domains/{name.partition('/')[0]}")


def test_two_products_whose_topics_differ_in_dots_and_lines_only(root: Path) -> None:
    copied(root, "shop/a_b")
    copied(root, "shop_a/b")
    (fault,) = faults_of(root)
    assert str(fault).startswith("domains/shop_a/b: its topics differ from those of shop.a_b in . and _ only")


def test_a_copied_product_that_still_says_whose_copy_it_is(root: Path) -> None:
    folder = copied(root, "shop/returns", identity="shop/orders")
    assert folder.is_dir()
    said = [fault.what for fault in faults_of(root)]
    assert "id does not say shop.returns" in said
    assert all("returns" in each for each in said)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["order id"], "order id"),
        (["_kafka_offset"], "this name is reserved for the table's own columns"),
        (["_partition"], "this name is reserved for the table's own columns"),
        (["total", "Total"], "Total"),
        (["x", "x"], "x"),
    ],
)
def test_a_field_s_name_that_iceberg_or_sql_refuses_is_one_clear_error(
    root: Path, capsys: pytest.CaptureFixture[str], fields: list[str], said: str
) -> None:
    names = ["order_id", *fields]
    document = {"type": "record", "name": "R", "fields": [{"name": name, "type": "string"} for name in names]}
    (root / SCHEMA).write_text(json.dumps(document), encoding="utf-8")
    fault = only_fault(root, capsys)
    assert fault.startswith(SCHEMA)
    assert said in fault


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1.0.0", None),
        ("0.9.9", None),
        ("1.0.0-rc.1", None),
        ("1.0.1", "shop.orders is at 1.0.0"),
        ("2.0.0-rc.1", "shop.orders is at 1.0.0"),
        ("10.0.0", "shop.orders is at 1.0.0"),
        ("1.0.0+build.7", None),
    ],
)
def test_an_input_s_version_that_the_mesh_has_not_reached_is_a_fault(
    root: Path, capsys: pytest.CaptureFixture[str], version: str, said: str | None
) -> None:
    folder = copied(root, "shop/refunds")
    with (folder / "contract.odcs.yaml").open("a", encoding="utf-8") as file:
        file.write(f"  - {{property: inputContracts, value: [{{id: shop.orders, version: {version}}}]}}\n")
    if said is None:
        assert len(load_mesh(root).products) == 2
    else:
        fault = only_fault(root, capsys)
        assert fault.startswith("domains/shop/refunds/contract.odcs.yaml:27:")
        assert said in fault


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_one_clear_error(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / CONTRACT).chmod(0)
    assert "the file cannot be read: Permission denied" in only_fault(root, capsys)
