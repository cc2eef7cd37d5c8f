"""Compatibility of versions of a schema, and of contracts, in all layers at once. Pure.

A schema registry looks at Avro's rules alone. It accepts changes that break the Iceberg table (an int that becomes a
double, a decimal's scale), and does not see that a field has lost its PII tag. Here every layer is always looked at:

* *avro*: the specification's rules of schema resolution, as the mode asks;
* *logical*: logical types, which those rules ignore;
* *table*: what the existing Iceberg table cannot follow, by the function that the sink follows it with;
* *governance*: PII tags and masks, and what a contract promises.
"""

from headrace.schemas.compatibility.contracts import PLACES, check_contracts, removed
from headrace.schemas.compatibility.findings import ABSENT, Breaks, Finding, Layer, Report
from headrace.schemas.compatibility.graph import parse
from headrace.schemas.compatibility.versions import check, promises

__all__ = [
    "ABSENT",
    "PLACES",
    "Breaks",
    "Finding",
    "Layer",
    "Report",
    "check",
    "check_contracts",
    "parse",
    "promises",
    "removed",
]
