"""Changing a test's mesh as a domain team does: by its files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from headrace.schemas.mesh import Mesh, load_mesh

if TYPE_CHECKING:
    from collections.abc import Callable

# Longer than a machine stands still, and shorter than a test's patience: who could not leave is missed in the end.
PATIENT_MS = 45_000


def amended(mesh: Mesh, product: str, change: Callable[[dict[str, Any]], object]) -> Mesh:
    """Change a product's contract; return the mesh as it is then."""
    path = mesh.root / "domains" / product.replace(".", "/") / "contract.odcs.yaml"
    contract = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(contract)
    path.write_text(yaml.safe_dump(contract), encoding="utf-8")
    return reloaded(mesh)


def with_properties(mesh: Mesh, product: str, **properties: object) -> Mesh:
    """Set custom properties of a contract, by their names with ``_`` for ``.``; return the mesh as it is then."""

    def change(contract: dict[str, Any]) -> None:
        names = {name.replace("_", "."): value for name, value in properties.items()}
        kept = [each for each in contract["customProperties"] if each["property"] not in names]
        contract["customProperties"] = [*kept, *({"property": name, "value": value} for name, value in names.items())]

    return amended(mesh, product, change)


def with_retention(mesh: Mesh, product: str, days: int) -> Mesh:
    """Set how long Kafka keeps events; return the mesh as it is then."""

    def change(contract: dict[str, Any]) -> None:
        kept = [each for each in contract["slaProperties"] if each["property"] != "retention"]
        contract["slaProperties"] = [*kept, {"property": "retention", "value": days, "unit": "d"}]

    return amended(mesh, product, change)


def patient(mesh: Mesh) -> Mesh:
    """Let workers be missed late, for tests that kill none: a machine that stands still loses no session."""
    path = mesh.root / "mesh.yaml"
    text = path.read_text(encoding="utf-8")
    assert "session.timeout.ms: 6000" in text
    path.write_text(text.replace("session.timeout.ms: 6000", f"session.timeout.ms: {PATIENT_MS}"), encoding="utf-8")
    return reloaded(mesh)


def with_fields(mesh: Mesh, product: str, *fields: dict[str, Any]) -> Mesh:
    """Add fields to a product's schema, or replace those of the same names; return the mesh as it is then."""
    path = mesh.root / "domains" / product.replace(".", "/") / "schema.avsc"
    schema = json.loads(path.read_text(encoding="utf-8"))
    new = {field["name"]: field for field in fields}
    kept = [new.pop(field["name"], field) for field in schema["fields"]]
    path.write_text(json.dumps({**schema, "fields": [*kept, *new.values()]}), encoding="utf-8")
    return reloaded(mesh)


def optional(name: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    """Return an optional field."""
    return {"name": name, "type": ["null", kind], "default": None, **more}


def reloaded(mesh: Mesh) -> Mesh:
    """Return the mesh as its files say now."""
    return load_mesh(mesh.root, environment=mesh.environment.name)
