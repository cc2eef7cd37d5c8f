"""The ODCS document of a product: what the standard's own schema takes, and what reads back as the same contract."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft201909Validator
from open_data_contract_standard.model import OpenDataContractStandard, SchemaProperty

from headrace.schemas.avro import AvroSchema
from headrace.schemas.documents import parse
from headrace.schemas.errors import MeshError
from headrace.schemas.mesh import load_mesh
from headrace.schemas.structure import differences, properties_in, structure_of
from headrace.selfserve.exports.formats import ExportFormat
from headrace.selfserve.exports.product import exported
from headrace.selfserve.exports.yaml_text import yaml_text
from tests.support.documented import SECRETS, WIDE, documented_mesh

if TYPE_CHECKING:
    from headrace.schemas.errors import Fault
    from headrace.schemas.mesh import Mesh

AIRLINE = Path(__file__).parents[2] / "examples" / "airline"
STANDARD = Draft201909Validator(
    json.loads(files("open_data_contract_standard").joinpath("schema.json").read_text(encoding="utf-8"))
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented") / "mesh"
    documented_mesh(folder)
    return folder


@pytest.fixture(scope="module")
def mesh(root: Path) -> Mesh:
    return load_mesh(root, environment="production")


def odcs(mesh: Mesh, name: str) -> str:
    return exported(mesh, mesh.product(name), ExportFormat.ODCS)


def complaints(text: str) -> list[str]:
    """What the standard's own JSON schema says against a document."""
    found = STANDARD.iter_errors(yaml.safe_load(text))
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def properties_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {path: dict(said) for path, said in properties_in(document["schema"][0], "")}


def test_every_product_s_document_is_the_standard_s(mesh: Mesh) -> None:
    for each in (mesh, load_mesh(AIRLINE)):
        for product in each.all_products:
            assert complaints(odcs(each, str(product.name))) == [], product.name


def test_the_standard_s_schema_would_say_what_is_wrong(mesh: Mesh) -> None:
    good = odcs(mesh, WIDE)
    for old, new in (("format: i64", "format: i65"), ("logicalType: map", "logicalType: dict"), ("host: ", "hots: ")):
        assert complaints(good.replace(old, new, 1)), old


def test_it_says_what_the_schema_says(mesh: Mesh) -> None:
    document = yaml.safe_load(odcs(mesh, WIDE))
    found = properties_of(document)
    fields = list(dict(properties_in({"properties": structure_of(mesh.product(WIDE).schema.record)}, "")))
    assert list(found) == [*fields, "_kafka_timestamp"]
    assert found["price"]["physicalType"] == "decimal(9,2)"
    assert found["size"]["required"] is False
    assert found["others[].country"]["enum"] == [{"value": "DE"}, {"value": "IT"}]
    assert found["grid"]["items"]["items"] == {
        "logicalType": "integer",
        "physicalType": "int",
        "logicalTypeOptions": {"format": "i32"},
        "required": False,
    }
    assert found["payer.Firm.vat"]["description"] == "the firm's number"
    assert found["email"]["tags"] == ["PII", "user.contact.email"]
    masked = {path: said["transformDescription"] for path, said in found.items() if "transformDescription" in said}
    assert masked == {path: f"masked in the table: {mask}" for path, mask in mesh.product(WIDE).masks.items()}


def test_what_the_contract_says_stays_as_it_is(mesh: Mesh) -> None:
    document = yaml.safe_load(odcs(mesh, WIDE))
    found = properties_of(document)
    assert (document["dataProduct"], document["tags"]) == ("everything", ["a", "1.5"])
    assert document["team"]["members"] == [{"username": "ann@example.org", "role": "owner"}]
    assert found["email"]["description"] == "said here"
    assert (found["id"]["tags"], found["id"]["classification"]) == (["own"], "internal")
    custom = {each["property"]: each["value"] for each in document["customProperties"]}
    assert custom["somebody.else"] == {"deep": [1, "1e3", None, "no"]}
    assert (custom["kafka.partitions"], custom["avro.compatibility"]) == (6, "BACKWARD")
    sla = {each["property"]: (each["value"], each["unit"]) for each in document["slaProperties"]}
    assert sla == {"retention": (7, "d"), "latency": (10, "s")}


def test_servers_are_the_environment_s_and_hold_no_secret(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    text = odcs(mesh, WIDE)
    assert "hunter2" not in text
    assert all(name not in text for name in SECRETS)
    archive, kafka, tables = yaml.safe_load(text)["servers"]
    assert archive["description"] == "kept by hand"
    assert (kafka["host"], kafka["format"]) == ("kafka-1.example:9093,${env:SECOND_BROKER}", "avro")
    assert {each["property"]: each["value"] for each in kafka["customProperties"]} == {
        "topic": "prod.shop.wide",
        "schemaRegistryUrl": "https://registry.example/api",
    }
    assert (tables["catalogUrl"], tables["warehouse"], tables["namespace"]) == (
        "https://catalog.example/api/catalog",
        "w-shop",
        "shop",
    )


def test_where_headrace_runs_the_servers_there_are_none_to_name(root: Path) -> None:
    assert "servers" not in yaml.safe_load(odcs(load_mesh(root), "shop.orders"))


def test_the_standard_s_model_reads_it_back(mesh: Mesh) -> None:
    for product in mesh.products:
        document = yaml.safe_load(odcs(mesh, str(product.name)))
        read = OpenDataContractStandard.model_validate(document)
        assert read.model_dump(by_alias=True, exclude_unset=True) == document


def test_in_the_contract_s_place_it_is_the_same_contract(root: Path, mesh: Mesh, tmp_path: Path) -> None:
    copy = tmp_path / "mesh"
    shutil.copytree(root, copy)
    texts = {str(product.name): odcs(mesh, str(product.name)) for product in mesh.products}
    for name, text in texts.items():
        path = copy / "domains" / name.replace(".", "/") / "contract.odcs.yaml"
        path.write_text(text, encoding="utf-8")
    again = load_mesh(copy, environment="production")
    for name, text in texts.items():
        assert again.product(name) == mesh.product(name)
        assert odcs(again, name) == text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "physicalType: decimal(9,2)",
            "physicalType: decimal(9,3)",
            'physicalType is not what the Avro schema says ("',
        ),
        ("logicalType: map", "logicalType: object", "logicalType is not what"),
        ("    required: false", "    required: true", "required is not what the Avro schema says (false)"),
        ("- value: IT", "- value: FR", "enum is not what"),
        ("format: i64", "format: i32", "logicalTypeOptions is not what"),
        ("physicalType: timestamptz", "physicalType: timestamp", "physicalType is not what"),
        ("    - name: vat", "    - name: vatt", "the Avro schema has no such field (did you mean payer.Firm.vat?)"),
    ],
)
def test_a_document_that_contradicts_the_schema_is_a_fault(
    root: Path, mesh: Mesh, tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = odcs(mesh, WIDE)
    assert old in text
    copy = tmp_path / "mesh"
    shutil.copytree(root, copy)
    path = copy / "domains/shop/wide/contract.odcs.yaml"
    changed = text.replace(old, new, 1)
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(MeshError) as error:
        load_mesh(copy)
    (fault,) = error.value.faults
    assert said in str(fault)
    line = int(fault.where.split(":")[1])
    at = text[: text.index(old)].count("\n") + 1
    assert at - 1 <= line <= at + 1


LEAVES = st.sampled_from(
    [
        # A field that is always null is refused by the check.
        *("boolean", "int", "long", "float", "double", "bytes", "string"),
        *({"type": "long", "logicalType": f"{each}-micros"} for each in ("time", "timestamp", "local-timestamp")),
        {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2},
        {"type": "string", "logicalType": "uuid"},
        {"type": "string", "logicalType": "nobody-knows-it"},
        {"type": "enum", "name": "E", "symbols": ["A", "B"]},
        {"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"},
        {"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"},
    ]
)


def record(types: list[Any]) -> dict[str, Any]:
    fields = [{"name": f"f{at}", "type": each, "doc": "d" * (at % 2)} for at, each in enumerate(types)]
    return {"type": "record", "name": "R", "fields": fields}


def above(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda each: {"type": "array", "items": each}),
        inner.map(lambda each: {"type": "map", "values": each}),
        st.lists(inner, min_size=1, max_size=3).map(record),
        inner.filter(lambda each: not isinstance(each, list)).map(lambda each: ["null", each]),
        inner.filter(lambda each: not isinstance(each, list | str)).map(lambda each: ["boolean", each, "null"]),
    )


def renamed(document: Any, taken: list[int]) -> Any:
    """The same schema with a name of its own for each named type."""
    if isinstance(document, list):
        return [renamed(each, taken) for each in document]
    if not isinstance(document, dict):
        return document
    changed = {key: renamed(value, taken) for key, value in document.items()}
    if document.get("type") in ("record", "enum", "fixed"):
        taken.append(0)
        changed["name"] = f"{document['name']}{len(taken)}"
    return changed


RECORDS = st.lists(st.recursive(LEAVES, above, max_leaves=6), min_size=1, max_size=4).map(
    lambda types: renamed(record(types), [])
)


@settings(deadline=None)
@given(RECORDS)
def test_any_schema_is_described_in_the_standard_s_words(document: dict[str, Any]) -> None:
    said = structure_of(AvroSchema.parse(json.dumps(document)).record)
    contract = {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": "a.b",
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": "b", "properties": said}],
    }
    assert not list(STANDARD.iter_errors(contract))
    read = [SchemaProperty.model_validate(each) for each in said]
    assert not list(differences(read, said, ()))


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc1.e:- #'\"|", min_size=1), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, min_size=1))
def test_yaml_says_to_every_reader_what_was_meant(value: dict[str, Any]) -> None:
    text = yaml_text(value)
    assert yaml.safe_load(text) == value
    faults: list[Fault] = []
    read = parse(text.encode(), "x", faults)
    assert not faults
    assert read is not None
    assert read.value == value


@pytest.mark.parametrize("end", ["\x85", "\u2028", "\u2029"])
def test_ends_of_lines_that_only_old_readers_know_are_escaped(end: str) -> None:
    value = {"a": end, "b": f"one{end}two {end}", f"c{end}": ["1", f"{end}3"]}
    text = yaml_text(value)
    assert end not in text
    assert yaml.safe_load(text) == value


@given(st.from_regex(r"[-+0-9.eExo_:]{1,8}", fullmatch=True))
def test_texts_that_look_like_numbers_stay_texts(text: str) -> None:
    faults: list[Fault] = []
    read = parse(yaml_text({"a": text}).encode(), "x", faults)
    assert read is not None
    assert read.value == {"a": text}
