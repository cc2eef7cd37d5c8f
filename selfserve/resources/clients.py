"""The servers of a mesh's environment, as resources ask them: Kafka, the registry, and a catalog for each domain."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Self

from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import HeadraceError, NotApplied, Unavailable
from headrace.schemas.registry import Registry
from headrace.streams.admin import Admin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.environment import Environment
    from headrace.schemas.product import Domain, Product
    from headrace.streams.admin import Settings, Topic

# Two processes that open a new catalog at once both make its tables, and one of them is told that they are there.
_OPENINGS = 3


class Clients:
    """Clients of one environment, for one run. Not for several threads; use it as a context manager.

    Args:
        environment: where the mesh runs.

    Raises:
        SettingsError, Unavailable: if a secret is missing, or the environment's own stack is not up.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._catalogs: dict[str, Catalog | HeadraceError] = {}
        self._topics: dict[str, tuple[Topic, Settings] | None] = {}
        self.admin = Admin(environment.kafka_config())
        self.registry = Registry(environment.registry_config())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.registry.close()

    def look_at_topics(self, names: Iterable[str]) -> None:
        """Read many topics in two requests; `topic` answers from what was read, until `forget`."""
        wanted = tuple(names)
        found = self.admin.find(*wanted)
        settings = self.admin.settings(*found)
        self._topics |= {name: (found[name], settings[name]) if name in found else None for name in wanted}

    def topic(self, name: str) -> tuple[Topic, Settings] | None:
        """Return a topic and its settings; None: there is none."""
        if name not in self._topics:
            self.look_at_topics([name])
        return self._topics[name]

    def forget(self, topic: str) -> None:
        """Read a topic anew when it is asked for next."""
        self._topics.pop(topic, None)

    def catalog(self, domain: Domain) -> Catalog:
        """Return a domain's catalog. One that does not answer is asked once in a run.

        Raises:
            SettingsError, Unavailable: as `open_catalog`.
        """
        if domain.name not in self._catalogs:
            self._catalogs[domain.name] = _opened(lambda: open_catalog(self._environment, domain))
        found = self._catalogs[domain.name]
        if isinstance(found, HeadraceError):
            raise found.with_traceback(None)
        return found

    def table(self, domain: Domain, product: Product) -> Table | None:
        """Return a product's table as it is now; None: there is none."""
        with suppress(NotApplied):
            return load_table(self.catalog(domain), product)
        return None

    def check_shared(self, error: HeadraceError) -> None:
        """Raise an error that every product would meet: Kafka's or the registry's silence, not one of a catalog.

        Raises:
            Unavailable: if it is one.
        """
        if not isinstance(error, Unavailable):
            return
        if error.where == self.admin.address:
            raise error
        if error.where == self.registry.address:
            self.registry.check_answers()


def _opened(open_: Callable[[], Catalog]) -> Catalog | HeadraceError:
    for attempt in range(_OPENINGS):
        try:
            return open_()
        except Unavailable as error:
            if attempt == _OPENINGS - 1:
                return error
        except HeadraceError as error:
            return error
    raise AssertionError("unreachable")
