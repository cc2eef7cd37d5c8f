"""What `headrace new` writes: the texts of a product's files, and of its domain's. Pure.

Every text is a start for a person: what only a person can say stands in it as a sentence that asks for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.documents import parse
from headrace.schemas.mesh_files import CONTRACT_FILE

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
    """

    name: ProductName
    owner: str
    purpose: str | None
    key: str
    inputs: Mapping[str, str]

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
            inputs=f"  - {{property: inputContracts, value: [{inputs}]}}\n" if inputs else "",
        )

    def schema(self) -> str:
        """Return the Avro schema: the key and the time, which nearly every event has."""
        return _SCHEMA.format(
            record=json.dumps("".join(word.capitalize() for word in self.name.product.split("_"))),
            domain=json.dumps(self.name.domain),
            key=json.dumps(self.key),
        )

    def readme(self) -> str:
        """Return the page for the people who use the product."""
        derived = f"Derived from {', '.join(self.inputs)}. " if self.inputs else ""
        return _README.format(
            name=self.name,
            purpose=self._purpose(),
            derived=derived,
            owner=self.owner,
            key=self.key,
            event=json.dumps({self.key: "1", "occurred_at": "2026-11-23T07:30:00Z"}),
        )

    def _purpose(self) -> str:
        return self.purpose or f"(to be said: what {self.name} is for, and for whom)"


def domain_text(name: str, owner: str, description: str | None) -> str:
    """Return the text of a domain's file."""
    said = description or f"(to be said: what the domain {name} is about)"
    return f"owner: {scalar(owner)}\ndescription: {scalar(said)}\n"


def scalar(text: str) -> str:
    """Return a line of text as YAML: bare where headrace's own reader then reads the same, in quotation marks else."""
    faults: list[Fault] = []
    # In a flow mapping, as the inputs stand in one, more must be quoted than elsewhere.
    read = parse(f"{{text: {text}}}".encode(), "", faults)
    bare = read is not None and not faults and read.value == {"text": text}
    return text if bare else json.dumps(text, ensure_ascii=False)


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
{inputs}"""

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

From a program:

```python
from headrace.schemas.mesh import load_mesh
from headrace.streams.subscriber import Subscriber

with Subscriber(load_mesh(), "{name}", group="your_domain.your_program") as events:
    for event in events:
        print(event)
```
"""
