"""Waiting for what does not answer: it says what it waits for, backs off with jitter, and ends when told to."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tenacity import Retrying, retry_if_exception_type, sleep_using_event, stop_when_event_set, wait_random_exponential

from headrace.schemas.errors import Bug, HeadraceError, Held, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from tenacity import RetryCallState

Result = TypeVar("Result")


def _unheard() -> None:
    """Nobody asks when the waiting is over."""


# A held product is looked at this often: it goes on within two seconds of its release.
HELD_S = 1.0
# And it is said that it is held this often, because a hold may last for days.
HELD_TELL_S = 60.0
# A race for a commit is lost to one that was under way: 20 ms with local files, 100 ms with a catalog far away.
FIRST_REST_S = 0.02
LONGEST_REST_S = 0.25
# More of them change nothing, and beyond a thousand the number is no float any more.
_DOUBLINGS = 8


@dataclass(frozen=True, slots=True)
class Patience:
    """Repeats what raises :class:`Unavailable` (or what ``repeated`` says), for as long as it takes.

    Attributes:
        report: is told what is waited for, before each wait; of a hold, once a minute.
        first_s: the longest first wait, in seconds; each further one may be twice as long.
        longest_s: the longest wait, in seconds.
        repeated: the errors after which the action is repeated.
        recovered: is told when an action has succeeded that was reported before.
    """

    report: Callable[[HeadraceError], None]
    first_s: float = 0.2
    longest_s: float = 10.0
    repeated: tuple[type[HeadraceError], ...] = (Unavailable,)
    recovered: Callable[[], None] = _unheard

    def with_(self, action: Callable[[], Result], stop: Event) -> Result:
        """Return what the action returns, however often it must be repeated.

        Raises:
            Unavailable: if ``stop`` was set while it waited: the last one.
            Exception: whatever else the action raises, at once.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(self.repeated),
            wait=self._wait_s,
            sleep=sleep_using_event(stop),
            stop=stop_when_event_set(stop),
            before_sleep=_Teller(self.report),
            reraise=True,
        )
        result = retrying(action)
        if retrying.statistics["attempt_number"] > 1:
            self.recovered()
        return result

    def _wait_s(self, state: RetryCallState) -> float:
        if isinstance(_error(state), Held):
            return HELD_S
        return wait_random_exponential(multiplier=self.first_s, max=self.longest_s)(state)


@dataclass(frozen=True, slots=True)
class Rest:
    """The wait after a lost race for a commit: random, and up to twice as long after each that was lost in a row.

    So workers that met do not meet again, and the more of them there are, the further apart they move.

    Attributes:
        abandon: once it is set, nobody waits.
    """

    abandon: Event

    def __call__(self, lost: int) -> None:
        """Wait after so many lost races."""
        longest_s = min(FIRST_REST_S * 2 ** min(lost - 1, _DOUBLINGS), LONGEST_REST_S)
        self.abandon.wait(random.uniform(0, longest_s))  # noqa: S311 - it keeps no secret


@dataclass(slots=True)
class _Teller:
    """Reports what is waited for; the same hold only now and then."""

    report: Callable[[HeadraceError], None]
    hold: str | None = None
    looks: int = 0

    def __call__(self, state: RetryCallState) -> None:
        error = _error(state)
        hold = error.what if isinstance(error, Held) else None
        self.looks = self.looks + 1 if hold is not None and hold == self.hold else 0
        self.hold = hold
        if self.looks % (HELD_TELL_S / HELD_S) == 0:
            self.report(error)


def _error(state: RetryCallState) -> HeadraceError:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, HeadraceError):
        raise Bug("waited for something else than an answer")
    return error
