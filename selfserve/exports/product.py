"""A product of a mesh, exported: the one place that reads its contract again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from headrace.schemas.documents import MAX_BYTES, parse
from headrace.schemas.errors import MeshError
from headrace.schemas.mesh_files import CONTRACT_FILE, DOMAINS_FOLDER, GOVERNANCE, OWN_FOLDER
from headrace.selfserve.exports.addresses import addresses_of
from headrace.selfserve.exports.asyncapi import asyncapi_of
from headrace.selfserve.exports.formats import ExportFormat
from headrace.selfserve.exports.markdown import markdown_of
from headrace.selfserve.exports.odcs import odcs_of
from headrace.selfserve.exports.yaml_text import yaml_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.errors import Fault
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product

__all__ = ["exported"]


def exported(mesh: Mesh, product: Product, form: ExportFormat) -> str:
    """Return a product of the mesh in a format. Needs no server and no secret, and no secret is in it.

    Raises:
        MeshError: if the contract's file has been changed since the mesh was loaded, and cannot be read.
    """
    match form:
        case ExportFormat.AVRO:
            return json.dumps(product.schema.document, indent=2, ensure_ascii=False) + "\n"
        case ExportFormat.MARKDOWN:
            return markdown_of(product)
        case ExportFormat.ASYNCAPI:
            return yaml_text(asyncapi_of(product, addresses_of(mesh.environment, mesh.domain_of(product))))
        case ExportFormat.ODCS:
            addresses = addresses_of(mesh.environment, mesh.domain_of(product))
            return yaml_text(odcs_of(_written(mesh, product), product, addresses))


def _written(mesh: Mesh, product: Product) -> Mapping[str, Any]:
    own = product.name.domain == GOVERNANCE
    folder = OWN_FOLDER if own else mesh.root / DOMAINS_FOLDER
    path = folder / product.name.domain / product.name.product / CONTRACT_FILE
    faults: list[Fault] = []
    with path.open("rb") as file:
        document = parse(file.read(MAX_BYTES + 1), path.relative_to(folder.parent).as_posix(), faults)
    if document is None or faults or not isinstance(document.value, dict):
        raise MeshError(faults)
    value: dict[str, Any] = document.value
    return value
