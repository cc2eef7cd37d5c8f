"""The formats of ``headrace export``."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ExportFormat"]


class ExportFormat(StrEnum):
    """As what a product is exported.

    ======== ==================================================================================
    odcs     its contract with all that the schema and the mesh say: Open Data Contract Standard
    asyncapi its topic and messages: AsyncAPI 3.1 with Kafka's bindings
    avro     its schema, as it is registered
    markdown a page for the people who use it
    ======== ==================================================================================
    """

    ODCS = "odcs"
    ASYNCAPI = "asyncapi"
    AVRO = "avro"
    MARKDOWN = "markdown"
