"""What a subscriber checks before the first event: its start, its group, its version, and what masks make null."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import NotApplied, SchemaError, UserError
from headrace.schemas.registered import UnreadableSchema
from headrace.schemas.types import unsupported
from headrace.streams.kafka import APPLY_HINT
from headrace.streams.masked import Noted, masks_of
from headrace.streams.starts import Beginning, Start
from headrace.streams.versions import followed_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.schemas.registered import RegisteredSchema
    from headrace.streams.versions import Registered

# Groups of headrace itself: sinks, the auditor.
OWN_GROUPS = "headrace."


def checked_start(start: Beginning) -> Beginning:
    """Return where to begin.

    Raises:
        UserError: if it is no start, or a time without zone.
    """
    if isinstance(start, Mapping):
        wrong = [
            (partition, offset)
            for partition, offset in start.items()
            if any(type(number) is not int or number < 0 for number in (partition, offset))
        ]
        if wrong:
            raise UserError(
                f"a subscriber cannot start at offset {wrong[0][1]!r} of partition {wrong[0][0]!r}",
                hint="give an offset from 0 for each partition, such as {0: 1200}",
            )
        return dict(start)
    if isinstance(start, dt.datetime):
        if start.tzinfo is None or start.utcoffset() is None:
            raise UserError(
                "the start's time has no zone",
                hint="write datetime(..., tzinfo=timezone.utc), or the zone that you mean",
            )
        return start
    try:
        return Start(start)
    except ValueError:
        raise UserError(
            f"a subscriber cannot start at {start!r}", hint=f"choose {', '.join(Start)}, a time with a zone, or offsets"
        ) from None


def check_group(group: str | None) -> None:
    """Check a group's name.

    Raises:
        UserError: if it is empty, or one of headrace's own.
    """
    if group is not None and (not group.strip() or group.startswith(OWN_GROUPS)):
        raise UserError(
            f"{group!r} is no name for a subscriber's group",
            hint=f"name it for what it does, such as marketing.campaigns; {OWN_GROUPS}* are headrace's own",
        )


def pinned_version(product: Product, versions: Sequence[Registered], wanted: int | None) -> RegisteredSchema:
    """Return the version that events are read as: the one wanted, else the last.

    Raises:
        NotApplied: if none is registered.
        UserError: if the wanted one is not among them.
        SchemaError: if headrace cannot carry it.
    """
    if not versions:
        raise NotApplied("the product's schema is not registered", where=f"subject {product.subject}", hint=APPLY_HINT)
    known = {version.version: version for version in versions}
    pinned = versions[-1] if wanted is None else known.get(wanted)
    if pinned is None:
        raise UserError(
            f"the subject has no version {wanted}",
            where=f"subject {product.subject}",
            hint=f"it has {', '.join(map(str, known))}",
        )
    if isinstance(pinned, UnreadableSchema):
        raise SchemaError(
            pinned.what,
            where=f"subject {product.subject}, version {pinned.version}",
            hint=pinned.hint or "pin another version",
        )
    faults = unsupported(pinned.schema)
    if faults:
        path, what, hint = faults[0]
        raise SchemaError(what, path=path, where=f"subject {product.subject}, version {pinned.version}", hint=hint)
    return pinned


def noted_masks(mesh: Mesh, product: Product) -> Noted:
    """Return the masks that the product's table has put on; none if there is no table.

    Raises:
        Unavailable: if the catalog does not answer.
        ProductStopped: if it names a mask that this headrace does not know.
    """
    try:
        table = load_table(open_catalog(mesh.environment, mesh.domain_of(product)), product)
    except NotApplied:
        return Noted({}, 0)
    return Noted(masks_of(table), followed_version(table))
