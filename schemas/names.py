"""Names: a product's topic, subject, dead-letter topic, consumer group and table all follow from ``domain.product``."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Lower case, digits and underscores, starting with a letter: what Kafka, Iceberg and SQL all read the same way without
# quoting. 63 is PostgreSQL's limit for an identifier, the lowest among the engines that read the tables.
PART = re.compile(r"[a-z][a-z0-9_]{0,62}")
# How the name of a table of dead letters ends, and that of no product.
DEAD_LETTER_TABLE = "__dlq"


@dataclass(frozen=True, slots=True, order=True)
class ProductName:
    """``domain.product``: the identity of a product everywhere."""

    domain: str
    product: str

    @classmethod
    def parse(cls, text: str) -> ProductName:
        """Parse ``domain.product``.

        Raises:
            ValueError: if the text is not two parts of lower-case letters, digits and underscores.
        """
        domain, dot, product = text.partition(".")
        if not (dot and PART.fullmatch(domain) and PART.fullmatch(product)):
            raise ValueError(f"{text!r} is not a product's name: write domain.product")
        return cls(domain, product)

    def topic(self, prefix: str = "") -> str:
        """Return the product's topic behind the environment's prefix."""
        return f"{prefix}{self}"

    def __str__(self) -> str:
        return f"{self.domain}.{self.product}"


def subject_of(topic: str) -> str:
    """Return the registry's subject of a topic's values (TopicNameStrategy)."""
    return f"{topic}-value"


def dead_letter_topic_of(topic: str) -> str:
    """Return the topic that holds what a product's sink had to refuse."""
    return f"{topic}.dlq"


def dead_letter_table_of(name: ProductName) -> ProductName:
    """Return the table that tells of a product's dead letters, all but their bytes, named as a product is."""
    return ProductName(name.domain, f"{name.product}{DEAD_LETTER_TABLE}")


def sink_group_of(topic: str) -> str:
    """Return the consumer group of a product's sink."""
    return f"headrace.sink.{topic}"
