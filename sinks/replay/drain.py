"""Reading a topic into a replay's branch, up to given positions and no further.

Not one offset further: an event behind main's positions may be of a version that main's table has not followed yet, and
a table that is held does not follow one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING

from headrace.schemas.errors import Held, ProductStopped, Stale
from headrace.sinks.batch import Limits
from headrace.sinks.catchup import Targets
from headrace.sinks.dead_letters.table import LetterTable
from headrace.sinks.dead_letters.topic import DeadLetters
from headrace.sinks.decoding import Decoding
from headrace.sinks.landing import Desk
from headrace.sinks.patience import Patience
from headrace.sinks.replay.boundary import BRANCH
from headrace.sinks.session import Session
from headrace.sinks.work import Works
from headrace.streams.admin import Admin, Watermarks
from headrace.streams.assigned import AssignedReader
from headrace.streams.reading import ReaderBefore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyiceberg.catalog import Catalog

    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.schemas.registry import Registry
    from headrace.sinks.landing import Landed, Post, Step
    from headrace.streams.reader import Polled, Reader, Rebalance

# Nobody waits for these rows until the swap: few large files are better than fresh ones.
_AGE_S = 60.0


def _unobserved(_step: Step, /) -> None:
    """Nobody watches the steps."""


@dataclass(slots=True)
class Drain:
    """Reads into the branch. What it has learned of schemas serves the next time too.

    Attributes:
        mesh: the mesh.
        product: the product.
        registry: the schema registry.
        catalog: the catalog of the product's domain.
        tell: is told how far it is, and what is waited for.
        observe: is told each step of a landing before it is done, from the landing's thread.
    """

    mesh: Mesh
    product: Product
    registry: Registry
    catalog: Catalog
    tell: Callable[[str], None]
    observe: Callable[[Step], None] = _unobserved
    rows: int = 0
    admin: Admin = field(init=False)
    _decoding: Decoding = field(init=False)

    def __post_init__(self) -> None:
        environment = self.mesh.environment
        self.admin = Admin(environment.kafka_config())
        hmac_key = environment.hmac_key()
        self._decoding = Decoding(self.product, self.mesh.policy, self.catalog, self.registry, hmac_key)

    def up_to(self, ends: Mapping[int, int]) -> None:
        """Read until the branch's ledger is at these positions in every partition, whatever it takes.

        Raises:
            ProductStopped: only an operator can decide: a version that no table can follow, a hold, a gap.
            Unavailable: another replay of this product is under way.
            NotApplied: the topic or the table is gone.
        """
        Patience(self._waiting).with_(lambda: self._session(ends), Event())

    def _session(self, ends: Mapping[int, int]) -> None:
        kafka, abandon, product = self.mesh.environment.kafka_config(), Event(), self.product
        post = DeadLetters(kafka, product, self.admin, abandon)
        topic = self.admin.topic(product.topic)
        targets = Targets({partition: Watermarks(0, end) for partition, end in ends.items()})

        def landed(landing: Landed, _seconds: float) -> None:
            self.rows += landing.rows
            left = sum(max(end - landing.ledger.next(partition), 0) for partition, end in ends.items())
            self.tell(f"{product.name}: built {self.rows:,} rows, {left:,} offsets are left")

        works = Works(
            product,
            self.admin,
            self._decoding,
            self._desk(post, lambda: self.admin.topic(topic.name).id),
            Limits(age_s=_AGE_S),
            Patience(self._waiting),
            self.observe,
            landed,
            abandon,
        )

        def open_reader(rebalance: Rebalance) -> Reader:
            return ReaderUpTo(AssignedReader(kafka, topic.name, range(topic.partitions), rebalance), ends)

        try:
            with Session(works, open_reader) as session:
                session.run(Event(), targets)
        except Stale as error:
            raise ProductStopped(
                f"another replay lands into the branch {BRANCH}: {error.what}",
                where=f"table {product.name}",
                hint="let it go on, or end it and run this again",
            ) from None
        finally:
            post.close()

    def _desk(self, post: Post, topic_id: Callable[[], str]) -> Desk:
        # What is refused today may have been a row before: the table of dead letters tells of it too.
        register = LetterTable(self.catalog, self.product)
        return Desk(self.product, self.catalog, post, self._decoding.shape, topic_id, BRANCH, register=register)

    def _waiting(self, error: HeadraceError) -> None:
        if isinstance(error, Held):
            # The hold may be the replay's own: it would wait for itself.
            raise ProductStopped(
                f"the table has not followed yet what the replay's events were written with, and it is {error.what}",
                where=f"table {self.product.name}",
                hint=f"release it, let its sink go on (`headrace sink {self.product.name}`), and run the replay again",
            )
        self.tell(f"waiting: {error}")


class ReaderUpTo(ReaderBefore):
    """A reader that hands nothing out at or behind given positions, and reaches them exactly.

    Args:
        reader: the reader.
        ends: by partition, the offset behind the last one that is wanted; of partitions that are not here, nothing is.
    """

    def __init__(self, reader: Reader, ends: Mapping[int, int]) -> None:
        super().__init__(reader)
        self._ends = ends

    def poll(self, timeout_s: float) -> Polled:
        """See :meth:`headrace.streams.reader.Reader.poll`."""
        polled = self._reader.poll(timeout_s)
        ends = {p: min(end, self._ends.get(p, 0)) for p, end in polled.ends.items()}
        # What lies before a message was handed out before it or with it.
        passed = {frame.partition for frame in polled.frames if int(frame.offsets[-1]) >= self._end(frame.partition)}
        ends |= {partition: self._end(partition) for partition in passed}
        frames = [frame.before(self._end(frame.partition)) for frame in polled.frames]
        return replace(polled, frames=[frame for frame in frames if len(frame)], ends=ends)

    def _end(self, partition: int) -> int:
        return self._ends.get(partition, 0)
