"""Waiting for what does not answer: it says what it waits for, backs off with jitter, and ends when told to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tenacity import Retrying, retry_if_exception_type, sleep_using_event, stop_when_event_set, wait_random_exponential

from headrace.schemas.errors import Bug, HeadraceError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from tenacity import RetryCallState

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Patience:
    """Repeats what raises :class:`Unavailable` (or what ``repeated`` says), for as long as it takes.

    Attributes:
        report: is told what is waited for, before each wait.
        first_s: the longest first wait, in seconds; each further one may be twice as long.
        longest_s: the longest wait, in seconds.
        repeated: the errors after which the action is repeated.
    """

    report: Callable[[HeadraceError], None]
    first_s: float = 0.2
    longest_s: float = 10.0
    repeated: tuple[type[HeadraceError], ...] = (Unavailable,)

    def with_(self, action: Callable[[], Result], stop: Event) -> Result:
        """Return what the action returns, however often it must be repeated.

        Raises:
            Unavailable: if ``stop`` was set while it waited: the last one.
            Exception: whatever else the action raises, at once.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(self.repeated),
            wait=wait_random_exponential(multiplier=self.first_s, max=self.longest_s),
            sleep=sleep_using_event(stop),
            stop=stop_when_event_set(stop),
            before_sleep=self._say,
            reraise=True,
        )
        return retrying(action)

    def _say(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if not isinstance(error, HeadraceError):
            raise Bug("waited for something else than an answer")
        self.report(error)
