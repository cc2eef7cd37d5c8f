"""What others' programs say of the documents that headrace exports: datacontract-cli, and AsyncAPI's own schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from jsonschema import Draft7Validator

from headrace.schemas.mesh import load_mesh
from headrace.selfserve.exports.asyncapi import ASYNCAPI_VERSION
from headrace.selfserve.exports.formats import ExportFormat
from headrace.selfserve.exports.product import exported
from tests.support.documented import WIDE, documented_mesh
from tests.support.oracles import asyncapi_schema, lint

if TYPE_CHECKING:
    from headrace.schemas.mesh import Mesh

AIRLINE = Path(__file__).parents[2] / "examples" / "airline"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    folder = tmp_path_factory.mktemp("documented") / "mesh"
    documented_mesh(folder)
    return load_mesh(folder, environment="production")


def texts(mesh: Mesh, form: ExportFormat) -> dict[str, str]:
    """The documents of all products of this mesh and of the example."""
    meshes = (mesh, load_mesh(AIRLINE))
    return {str(each.name): exported(one, each, form) for one in meshes for each in one.all_products}


def test_datacontract_cli_finds_nothing_in_the_odcs_documents(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "contract.odcs.yaml"
    found = texts(mesh, ExportFormat.ODCS)
    # Each takes it a second or two; the standard's own schema is asked about all of them elsewhere.
    for name in (WIDE, "shop.a_change_stream", "shop.a_derived", "operations.flights"):
        file.write_text(found[name], encoding="utf-8")
        status, said = lint(file)
        assert status == 0, f"{name}: {said}"
    file.write_text(found[WIDE].replace("format: i64", "format: i65", 1), encoding="utf-8")
    status, said = lint(file)
    assert status != 0
    assert "logicalTypeOptions.format" in said


def test_the_asyncapi_documents_are_valid_by_asyncapi_s_own_schema(mesh: Mesh) -> None:
    judge = Draft7Validator(asyncapi_schema(ASYNCAPI_VERSION))
    found = texts(mesh, ExportFormat.ASYNCAPI)
    for name, text in found.items():
        assert [error.message for error in judge.iter_errors(yaml.safe_load(text))] == [], name
    good = found[WIDE]
    for old, new in (
        ("action: send", "action: sned"),
        ("schemaIdLocation", "schemaIdPlace"),
        ("retention.ms: 604800000", "retention.ms: long"),
        ("- compact", "- compacted"),
        ("type: record", "type: recrod"),
        ("kafka-secure\n", "kafka-secure\n    hots: x\n"),
    ):
        assert list(judge.iter_errors(yaml.safe_load(good.replace(old, new, 1)))), old
