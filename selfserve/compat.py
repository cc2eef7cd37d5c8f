"""`headrace compat`: schemas in files, compared without a mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from headrace.schemas.compatibility import check, parse
from headrace.schemas.errors import SchemaError
from headrace.selfserve.check_report import finding_json, finding_text, json_text
from headrace.selfserve.output import say, visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.compatibility import Finding, Report
    from headrace.schemas.product import Compatibility

__all__ = ["ComparedFiles", "compare_files", "write_compat_json", "write_compat_text"]


@dataclass(frozen=True, slots=True)
class ComparedFiles:
    """Schemas that were compared: their files, oldest first, the mode, and what was found."""

    files: Sequence[str]
    mode: Compatibility
    report: Report

    def against(self, finding: Finding) -> list[str]:
        """Return the files that a finding is against."""
        return [self.files[position - 1] for position in finding.against]


def compare_files(files: Sequence[Path], mode: Compatibility) -> ComparedFiles:
    """Compare the last of some schemas with those before it.

    Raises:
        SchemaError: if a file holds no schema of an event.
        OSError: if a file cannot be read.
    """
    *old, new = [_schema(file) for file in files]
    return ComparedFiles(list(map(str, files)), mode, check(old, new, mode))


def write_compat_text(found: ComparedFiles, out: TextIO) -> None:
    """Write a block for each finding, then what the table would change, and the verdict."""
    new = found.files[-1]
    for finding in found.report.findings:
        where = f"{new}{f' {finding.path}' if finding.path else ''}"
        say(finding_text(finding, where, " and ".join(found.against(finding))), file=out)
    for change in found.report.changes:
        say(f"table: {visible(' '.join(change))}", file=out)
    count = len(found.report.findings)
    verdict = "breaks nobody" if not count else f"{count} finding{'s' if count != 1 else ''}"
    say(f"{visible(new)}: {verdict} ({found.mode})", file=out)


def write_compat_json(found: ComparedFiles, out: TextIO) -> None:
    """Write one object with everything."""
    document = {
        "ok": found.report.ok,
        "compatible": found.report.compatible,
        "mode": str(found.mode),
        "findings": [{**finding_json(finding), "against": found.against(finding)} for finding in found.report.findings],
        "table": [list(change) for change in found.report.changes],
    }
    out.write(json_text(document))


def _schema(file: Path) -> AvroSchema:
    try:
        return parse(file.read_text(encoding="utf-8-sig"), where=str(file))
    except UnicodeDecodeError:
        raise SchemaError("this is not UTF-8 text", where=str(file), hint="save the file as UTF-8") from None
