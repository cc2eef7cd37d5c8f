"""What `headrace new` writes: the texts of a product's files, and of its domain's. Pure.

Every text is a start for a person: what only a person can say stands in it as a sentence that asks for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.schemas.documents import parse
from headrace.schemas.mesh_files import CONTRACT_FILE
from headrace.schemas.names import PART
from headrace.schemas.sql_words import RESERVED
from headrace.selfserve.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.errors import Fault
    from headrace.schemas.names import ProductName

SCHEMA_FILE = "schema.avsc"
README_FILE = "README.md"
DEFAULT_KEY = "id"


@dataclass(frozen=True, slots=True)
class Blank:
    """What is known of a product that is about to be written.

    Attributes:
        name: its name.
        owner: the team that answers for it.
        purpose: what it is for; None: a person has yet to say it.
        key: the field whose events must stay in order.
        inputs: the versions of the contracts of the products that it is derived from, by name.
        kind: what its events tell. A derived product's are events like others.
    """

    name: ProductName
    owner: str
    purpose: str | None
    key: str
    inputs: Mapping[str, str]
    kind: Kind = Kind.EVENT

    def files(self) -> dict[str, str]:
        """Return the text of each file of the product's folder."""
        return {CONTRACT_FILE: self.contract(), SCHEMA_FILE: self.schema(), README_FILE: self.readme()}

    def contract(self) -> str:
        """Return the contract: an ODCS document that the Avro schema beside it completes."""
        inputs = ", ".join(f"{{id: {name}, version: {scalar(version)}}}" for name, version in self.inputs.items())
        return _CONTRACT.format(
            product=self.name.product,
            domain=self.name.domain,
            purpose=scalar(self._purpose()),
            owner=scalar(self.owner),
            key=scalar(self.key),
            cleanup=_CLEANUP if self.kind is Kind.CHANGE_STREAM else "",
            inputs=f"  - {{property: inputContracts, value: [{inputs}]}}\n" if inputs else "",
        )

    def schema(self) -> str:
        """Return the Avro schema: the key and the time, which nearly every event has; of a change also what it did."""
        return (_CHANGE_SCHEMA if self.kind is Kind.CHANGE_STREAM else _SCHEMA).format(
            record=json.dumps(self._record_name()),
            domain=json.dumps(self.name.domain),
            key=json.dumps(self.key),
            operation=json.dumps(f"{self._record_name()}Operation"),
            state=json.dumps(f"{self._record_name()}State"),
        )

    def readme(self) -> str:
        """Return the page for the people who use the product."""
        derived = f"Derived from {', '.join(self.inputs)}. " if self.inputs else ""
        changes = _CHANGES.format(name=self.name, key=sql_name(self.key)) if self.kind is Kind.CHANGE_STREAM else ""
        return _README.format(
            name=self.name,
            purpose=self._purpose(),
            derived=derived,
            owner=self.owner,
            event=json.dumps(self.example()),
            changes=changes,
        )

    def example(self) -> dict[str, Any]:
        """Return an event of the product, as a line of a file says it."""
        if self.kind is Kind.CHANGE_STREAM:
            return {self.key: "1", "op": "create", "changed_at": _EXAMPLE_TIME, "after": {"status": "new"}}
        return {self.key: "1", "occurred_at": _EXAMPLE_TIME}

    def _record_name(self) -> str:
        return "".join(word.capitalize() for word in self.name.product.split("_"))

    def _purpose(self) -> str:
        return self.purpose or f"(to be said: what {self.name} is for, and for whom)"


def domain_text(name: str, owner: str, description: str | None) -> str:
    """Return the text of a domain's file."""
    said = description or f"(to be said: what the domain {name} is about)"
    return f"owner: {scalar(owner)}\ndescription: {scalar(said)}\n"


def scalar(text: str) -> str:
    """Return a line of text as YAML: bare where headrace's own reader then reads the same, in quotation marks else."""
    # In a flow mapping, as the inputs stand in one, other texts must be quoted than in lines.
    bare = _reads_as(text, f"{{text: {text}}}") and _reads_as(text, f"text: {text}\n")
    return text if bare else json.dumps(text, ensure_ascii=False)


def _reads_as(text: str, document: str) -> bool:
    faults: list[Fault] = []
    read = parse(document.encode(), "", faults)
    return read is not None and not faults and read.value == {"text": text}


def sql_name(name: str) -> str:
    """Return a column's name as SQL wants it: bare where every engine reads it so, in quotation marks else."""
    return name if PART.fullmatch(name) and name not in RESERVED else f'"{name}"'


_EXAMPLE_TIME = "2026-11-23T07:30:00Z"

_CONTRACT = """\
apiVersion: v3.2.0
kind: DataContract
id: {domain}.{product}
name: {product}
version: 1.0.0
# draft until others may rely on it; then active.
status: draft
domain: {domain}
description:
  purpose: {purpose}
team:
  name: {owner}
schema:
  - name: {product}
    physicalName: {domain}.{product}
    authoritativeDefinitions:
      - {{type: schema, url: schema.avsc}}
    # The Avro schema says what the fields are. Here stands what the contract adds: the key, a stronger mask.
    properties:
      - name: {key}
        primaryKey: true
        primaryKeyPosition: 1
slaProperties:
  - {{property: latency, value: 10, unit: s}}
  - {{property: retention, value: 30, unit: d}}
customProperties:
  - {{property: kafka.partitions, value: 4}}
  - {{property: avro.compatibility, value: BACKWARD}}
{cleanup}{inputs}"""

_CLEANUP = """\
  # Every change is kept for as long as the retention says. Compaction would keep the last change of each key alone,
  # and who reads later would never see the others. A deletion is an event with op: delete, not an empty message.
  - {property: kafka.cleanup.policy, value: delete}
"""

_SCHEMA = """\
{{
  "type": "record",
  "name": {record},
  "namespace": {domain},
  "fields": [
    {{"name": {key}, "type": "string", "doc": "the key: its events stay in order"}},
    {{"name": "occurred_at", "type": {{"type": "long", "logicalType": "timestamp-millis"}}, "doc": "UTC"}}
  ]
}}
"""

_CHANGE_SCHEMA = """\
{{
  "type": "record",
  "name": {record},
  "namespace": {domain},
  "fields": [
    {{"name": {key}, "type": "string", "doc": "the key: its changes stay in order"}},
    {{
      "name": "op",
      "type": {{
        "type": "enum",
        "name": {operation},
        "symbols": ["create", "update", "delete", "snapshot", "other"],
        "default": "other"
      }},
      "doc": "what was done; snapshot: it was there when the stream began; other: a later version's word"
    }},
    {{"name": "changed_at", "type": {{"type": "long", "logicalType": "timestamp-millis"}}, "doc": "UTC"}},
    {{
      "name": "after",
      "type": [
        "null",
        {{
          "type": "record",
          "name": {state},
          "fields": [
            {{"name": "status", "type": ["null", "string"], "default": null, "doc": "an example: put yours here"}}
          ]
        }}
      ],
      "default": null,
      "doc": "the whole state after the change; null: it is deleted"
    }}
  ]
}}
"""

_CHANGES = """
Each event says what became of one thing, which its key names: `op` what was done, `after` its whole state from then on.
A deletion has `op` delete and no `after`; a message without a value, Kafka's tombstone, is a dead letter. The table
holds every change. What there is now:

    SELECT {key}, after.status, changed_at
    FROM (
      SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY _generation DESC, _kafka_offset DESC) AS newest
      FROM {name}
    )
    WHERE newest = 1 AND op <> 'delete'

Changes of one thing are in one partition, so their offsets are in order, as long as the topic keeps its number of
partitions.
"""

_README = """\
# {name}

{purpose}

{derived}Owner: {owner}. Key, version and service levels stand in `contract.odcs.yaml`, the fields in `schema.avsc`.
A field with personal data is tagged there, `"confluent:tags": ["PII", "user.contact.email"]`: the table masks it.

An event, as a line of a file:

    {event}

Publish a file of them, look at the newest, query the table:

    headrace publish {name} FILE.jsonl
    headrace tail {name}
    headrace sql "SELECT * FROM {name}"
{changes}
From a program:

```python
from headrace.schemas.mesh import load_mesh
from headrace.streams.subscriber import Subscriber

with Subscriber(load_mesh(), "{name}", group="your_domain.your_program") as events:
    for event in events:
        print(event)
```
"""
