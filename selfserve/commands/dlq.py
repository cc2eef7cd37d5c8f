"""Commands of dead letters: ``dlq list``, ``dlq show``, ``dlq redrive``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.schemas.errors import UsageError, UserError
from headrace.selfserve.commands import epilog, session_of
from headrace.selfserve.commands.questions import confirm
from headrace.selfserve.output import ReportFormat, progress, say, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pyiceberg.catalog import Catalog

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.sinks.dead_letters.message import Kept
    from headrace.streams.admin import Admin

app = typer.Typer()
dlq_app = typer.Typer(no_args_is_help=True)

_PLACE = re.compile(r"(\d{1,9}):(\d{1,18})")

# Typer reads a command's annotations when it runs: these names must be there then.
Name = Annotated[str, typer.Argument(metavar="PRODUCT", help="A name such as operations.flights.")]
Place = Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="Where it came from, as dlq list shows it.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="R", help="Only those refused for this reason.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=0, help="How many single letters to show, the newest.")]
Report = Annotated[ReportFormat, typer.Option("--format", help="How to write it.")]
Partition = Annotated[int | None, typer.Option("--partition", metavar="P", min=0, help="Only those of this partition.")]
Offset = Annotated[
    int | None, typer.Option("--offset", metavar="O", min=0, help="Only that of this offset, with --partition.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask: for scripts.")]
Unmasked = Annotated[
    bool,
    typer.Option(
        "--unmasked", help="Print key and value too, as they are: this may be personal data, which no mask has covered."
    ),
]

app.add_typer(
    dlq_app,
    name="dlq",
    help="Look at dead letters, and put them back.",
    epilog=epilog("headrace dlq list operations.flights", "headrace dlq redrive operations.flights"),
)


@dataclass(frozen=True, slots=True)
class _Post:
    """A product, its tables' catalog, and its letters."""

    mesh: Mesh
    product: Product
    catalog: Catalog
    config: Mapping[str, str]
    admin: Admin

    @classmethod
    def of(cls, context: typer.Context, name: str) -> _Post:
        from headrace.schemas.catalog import open_catalog
        from headrace.streams.admin import Admin

        mesh = session_of(context).mesh()
        product, config = mesh.product(name), mesh.environment.kafka_config()
        return cls(mesh, product, open_catalog(mesh.environment, mesh.domain_of(product)), config, Admin(config))

    def letters(self, tell: Callable[[str], None]) -> Iterator[Sequence[Kept]]:
        from headrace.sinks.dead_letters.log import read_letters

        count = 0
        for portion in read_letters(self.config, self.admin, self.product):
            yield portion
            count += len(portion)
            tell(f"{self.product.name}: {count:,} dead letters read, repeats included")


@dlq_app.command(
    name="list",
    epilog=epilog(
        "headrace dlq list operations.flights",
        "headrace dlq list operations.flights --reason unknown-schema --format json",
        ok="they are listed, or there are none",
    ),
)
def list_(
    context: typer.Context,
    product: Name,
    reason: Reason = None,
    limit: Limit = 20,
    report: Report = ReportFormat.TABLE,
) -> None:
    """List a product's dead letters: how many for which reason, and the newest ones.

    A letter is open, or in the table all the same, or not yet passed by the sink, which may still make a row of it.
    Keys and values are not shown.
    """
    from headrace.selfserve.dead_letters import look_at_letters
    from headrace.selfserve.dead_letters_view import show_letters, write_letters
    from headrace.sinks.dead_letters.redriving import Wish

    post = _Post.of(context, product)
    with progress("reading dead letters") as tell:
        letters = look_at_letters(post.catalog, post.product, post.letters(tell), Wish(reason), limit)
    if report is ReportFormat.JSON:
        write_letters(letters, sys.stdout)
    else:
        show_letters(letters, sys.stdout)


@dlq_app.command(
    name="show",
    epilog=epilog("headrace dlq show operations.flights 0:4711", ok="it is shown"),
)
def show(
    context: typer.Context,
    product: Name,
    place: Place,
    *,
    unmasked: Unmasked = False,
    report: Report = ReportFormat.TABLE,
) -> None:
    """Show all of a dead letter but its bytes, and what decoding says of it now.

    That is the reason and the field, never a value. With --unmasked, key and value are printed as they are: they may be
    personal data, and nothing has masked them.
    """
    from headrace.schemas.registry import Registry
    from headrace.selfserve.dead_letters import Followed, find_letter, state_of
    from headrace.selfserve.dead_letters_view import show_bytes, show_letter, write_letter
    from headrace.sinks.dead_letters.verdict import verdict_now

    wanted = _place(place)
    post = _Post.of(context, product)
    followed = Followed.by(post.catalog, post.product)
    with progress("reading dead letters") as tell:
        kept = find_letter(followed, post.letters(tell), wanted)
    if kept is None:
        raise UserError(
            f"there is no dead letter of partition {wanted[0]}, offset {wanted[1]}",
            where=f"topic {post.product.dead_letter_topic}",
            hint=f"headrace dlq list {post.product.name}",
        )
    state = state_of(post.catalog, post.product, kept)
    with Registry(post.mesh.environment.registry_config()) as registry:
        verdict = verdict_now(post.product, post.mesh.policy, registry, kept.letter)
    if report is ReportFormat.JSON:
        write_letter(kept, state, verdict, unmasked=unmasked, out=sys.stdout)
        return
    show_letter(kept, state, verdict, post.product, sys.stdout)
    if unmasked:
        show_bytes("key", kept.letter.key, sys.stdout)
        show_bytes("value", kept.letter.value, sys.stdout)


@dlq_app.command(
    name="redrive",
    epilog=epilog(
        "headrace dlq redrive operations.flights",
        "headrace dlq redrive operations.flights --reason unknown-schema --yes",
        ok="each letter that can be read by now is in the table, once",
        failed="it was broken off; what was put back stays, and it may be run again",
    ),
)
def redrive(
    context: typer.Context,
    product: Name,
    reason: Reason = None,
    partition: Partition = None,
    offset: Offset = None,
    *,
    yes: Yes = False,
) -> None:
    """Put dead letters back into the table, after what was wrong has been mended.

    Each becomes the row that it should have been: its partition, offset, timestamp and generation, and today's masks.
    So do letters of a topic that was made anew since. None comes twice, however often this runs, and sinks may run
    meanwhile. Letters that still cannot be read stay.
    A row that somebody has deleted from the table comes back while its letter is there; --partition and --offset choose
    others. Subscribers that have passed its offset do not see the event any more; the table has it.
    """
    from headrace.schemas.catalog import load_table
    from headrace.schemas.registry import Registry
    from headrace.selfserve.dead_letters import State, look_at_letters
    from headrace.selfserve.dead_letters_view import show_put_back, show_tally
    from headrace.sinks.dead_letters.redrive import Redrive, check_redrivable
    from headrace.sinks.dead_letters.redriving import Tally, Wish
    from headrace.sinks.decoding import Decoding

    if offset is not None and partition is None:
        raise UsageError("an offset alone says nothing", hint="add --partition P")
    post, wish = _Post.of(context, product), Wish(reason, partition, offset)
    check_redrivable(load_table(post.catalog, post.product), post.product)
    hmac_key = post.mesh.environment.hmac_key()
    with progress("reading dead letters") as tell:
        before = look_at_letters(post.catalog, post.product, post.letters(tell), wish, 0)
    waiting = before.total(State.OPEN)
    if not waiting:
        say(f"{post.product.name} has no dead letter{visible(str(wish))} to put back", file=sys.stdout)
        return
    for name in sorted({name for name, state in before.counts if state is State.OPEN}):
        say(f"{before.counts[name, State.OPEN]:,} open: {visible(name)}")
    confirm(f"put what can be read of {waiting:,} letters back into {post.product.name}?", yes=yes)
    tally = Tally()
    with Registry(post.mesh.environment.registry_config()) as registry, progress("putting letters back") as tell:
        decoding = Decoding(post.product, post.mesh.policy, post.catalog, registry, hmac_key)
        try:
            Redrive(post.catalog, post.product, decoding, wish).run(post.letters(tell), tally)
        except BaseException:
            show_put_back(tally, post.product, sys.stdout)
            raise
    show_tally(tally, post.product, sys.stdout)


def _place(text: str) -> tuple[int, int]:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no place of a letter", hint="write PARTITION:OFFSET, such as 0:4711")
    return int(match[1]), int(match[2])
