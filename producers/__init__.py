"""What services import to emit events: a publisher, and exactly-once publishing of sources and files."""

from __future__ import annotations

from headrace.producers.files import FilePublished, publish_file
from headrace.producers.lines import BadLine
from headrace.producers.publisher import Publisher
from headrace.producers.resumable import Published, publish_all

__all__ = ["BadLine", "FilePublished", "Published", "Publisher", "publish_all", "publish_file"]
