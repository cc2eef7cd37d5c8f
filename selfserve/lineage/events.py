"""OpenLineage's events of a sink's run: what it reads, what it writes, which columns are masked, how much. Pure.

Each event says all that is known then, so the next makes up for one that got lost. Source of names and facets:
OpenLineage's specification 2-0-2, "Naming Conventions" and "Facets".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    RunFacet,
    catalog_dataset,
    dataset_version_dataset,
    documentation_dataset,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    output_statistics_output_dataset,
    ownership_dataset,
    ownership_job,
    processing_engine_run,
    schema_dataset,
    storage_dataset,
    symlinks_dataset,
)

from headrace.selfserve.lineage.columns import Masked, column_lineage, table_fields, topic_fields

if TYPE_CHECKING:
    from datetime import datetime

    from pyiceberg import types as ice

    from headrace.schemas.product import Product

__all__ = ["Counts", "Moment", "Origin", "RunState", "TableFacts", "kafka_namespace", "place_of_table", "run_event"]

_DEFAULT_KAFKA_PORT = 9092
# librdkafka allows a protocol before a server.
_SERVER = re.compile(r"(?:[A-Za-z_]+://)?(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>\d+))?")
_PLACE = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*):/{1,2}(?P<authority>[^/]*)(?P<path>.*)", re.DOTALL)
# Hadoop's names of the one store.
_SCHEMES = {"s3a": "s3", "s3n": "s3"}


@dataclass(frozen=True, slots=True)
class Origin:
    """What does not change while a run lasts.

    Attributes:
        run_id: the run's UUID.
        job_namespace: the mesh's, as OpenLineage names jobs.
        kafka_namespace: the broker's, as OpenLineage names datasets.
        product: the product whose sink it is.
        version: headrace's.
    """

    run_id: str
    job_namespace: str
    kafka_namespace: str
    product: Product
    version: str

    @property
    def producer(self) -> str:
        """Who says so, as a package URL (ECMA-427)."""
        return f"pkg:pypi/headrace@{self.version}"


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What a look at the product's table found.

    Attributes:
        columns: its columns.
        location: where its files lie.
        masked: what is masked in it.
        snapshot_id: its newest snapshot; None: it has none.
        catalog: the catalog's name and its kind: ``rest``, ``sql``, ``glue`` …
        home: where others find the catalog, or its warehouse: an address without user and password.
    """

    columns: tuple[ice.NestedField, ...]
    location: str
    masked: Masked
    snapshot_id: int | None
    catalog: tuple[str, str]
    home: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What a run has done so far.

    Attributes:
        rows: rows that it has added.
        letters: messages that it has refused.
        read_bytes: the size of its messages.
        written_bytes: the size of its data files.
        snapshot_id: the newest snapshot that is its own; None: none yet.
    """

    rows: int = 0
    letters: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    snapshot_id: int | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """A turn in a run: which, when, what was done by then; on a fault what is wrong, without values or secrets."""

    state: RunState
    at: datetime
    counts: Counts
    fault: str | None = None


def run_event(origin: Origin, moment: Moment, table: TableFacts | None) -> RunEvent:
    """Return the event of a moment.

    Args:
        origin: the run.
        moment: the turn that it takes.
        table: what is known of the table; None: nothing yet, and the event has no output.
    """
    outputs = [] if table is None else [_table(origin, moment.counts, table)]
    if moment.counts.letters:
        outputs.append(_dead_letters(origin, moment.counts))
    return RunEvent(
        eventType=moment.state,
        eventTime=moment.at.isoformat(),
        run=Run(origin.run_id, _run_facets(origin, moment)),
        job=_job(origin),
        inputs=[_topic(origin, moment.counts)],
        outputs=outputs,
        producer=origin.producer,
    )


def kafka_namespace(bootstrap_servers: str) -> str:
    """Return the namespace of a broker's topics: ``kafka://host:port`` of the first server."""
    first = bootstrap_servers.partition(",")[0].strip()
    found = _SERVER.fullmatch(first)
    host, port = (found["host"], found["port"]) if found else (first, None)
    return f"kafka://{host}:{port or _DEFAULT_KAFKA_PORT}"


def place_of_table(location: str) -> tuple[str, str]:
    """Return namespace and name of what lies at a location: bucket and key of a store, ``file`` and path of a disk."""
    found = _PLACE.fullmatch(location)
    if found is None or found["scheme"] == "file":
        path = found["path"] if found else location
        return "file", path.rstrip("/")
    scheme = _SCHEMES.get(found["scheme"], found["scheme"])
    path = found["path"].rstrip("/")
    return f"{scheme}://{found['authority']}", path if scheme == "hdfs" else path.lstrip("/")


def _run_facets(origin: Origin, moment: Moment) -> dict[str, RunFacet]:
    facets: dict[str, RunFacet] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            origin.version, "headrace", origin.version, producer=origin.producer
        )
    }
    if moment.fault is not None:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            moment.fault, "PYTHON", producer=origin.producer
        )
    return facets


def _job(origin: Origin) -> Job:
    product = origin.product
    return Job(
        origin.job_namespace,
        f"sink.{product.name}",
        {
            "jobType": job_type_job.JobTypeJobFacet("STREAMING", "HEADRACE", "SINK", producer=origin.producer),
            "ownership": ownership_job.OwnershipJobFacet(
                [ownership_job.Owner(f"team:{product.contract.owner}", "OWNER")], producer=origin.producer
            ),
        },
    )


def _topic(origin: Origin, counts: Counts) -> InputDataset:
    product = origin.product
    schema = schema_dataset.SchemaDatasetFacet(topic_fields(product.schema), producer=origin.producer)
    read = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
        rowCount=counts.rows + counts.letters, size=counts.read_bytes, producer=origin.producer
    )
    facets = {"schema": schema, **_contract_facets(origin)}
    return InputDataset(origin.kafka_namespace, product.topic, {"inputStatistics": read}, facets=facets)


def _table(origin: Origin, counts: Counts, table: TableFacts) -> OutputDataset:
    producer, product = origin.producer, origin.product
    namespace, name = place_of_table(table.location)
    catalog, kind = table.catalog
    known = symlinks_dataset.Identifier(table.home, str(product.name), "TABLE")
    facets: dict[str, DatasetFacet] = {
        "schema": schema_dataset.SchemaDatasetFacet(table_fields(table.columns), producer=producer),
        "columnLineage": column_lineage(
            table.columns,
            table.masked,
            namespace=origin.kafka_namespace,
            topic=product.topic,
            producer=producer,
        ),
        "symlinks": symlinks_dataset.SymlinksDatasetFacet([known], producer=producer),
        "storage": storage_dataset.StorageDatasetFacet("iceberg", "parquet", producer=producer),
        "catalog": catalog_dataset.CatalogDatasetFacet(
            "iceberg", kind, catalog, source="headrace", catalogProperties=None, producer=producer
        ),
        **_contract_facets(origin),
    }
    # What the run has landed itself may be newer than the look at the table.
    snapshot_id = counts.snapshot_id or table.snapshot_id
    if snapshot_id is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(str(snapshot_id), producer=producer)
    written = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=counts.rows, size=counts.written_bytes, producer=producer
    )
    return OutputDataset(namespace, name, {"outputStatistics": written}, facets=facets)


def _dead_letters(origin: Origin, counts: Counts) -> OutputDataset:
    written = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=counts.letters, producer=origin.producer
    )
    return OutputDataset(origin.kafka_namespace, origin.product.dead_letter_topic, {"outputStatistics": written})


def _contract_facets(origin: Origin) -> dict[str, DatasetFacet]:
    contract = origin.product.contract
    owner = ownership_dataset.Owner(f"team:{contract.owner}", "OWNER")
    return {
        "ownership": ownership_dataset.OwnershipDatasetFacet([owner], producer=origin.producer),
        "documentation": documentation_dataset.DocumentationDatasetFacet(contract.purpose, producer=origin.producer),
    }
