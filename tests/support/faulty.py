"""An unreliable catalog, made of a real one. For an unreliable storage see ``faulty_storage.py``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import ReadTimeout
from sqlalchemy.exc import OperationalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyiceberg.table import CommitTableResponse, Table
    from pyiceberg.table.update import TableRequirement, TableUpdate
    from pyiceberg.typedef import Identifier


class Crash(BaseException):
    """The worker is gone: nothing of its code may run after this."""


class CommitFault(StrEnum):
    """What may happen to one request to commit."""

    REFUSED = "refused before it was sent"
    REPLY_LOST = "landed, and the reply was lost"
    LATE_BEFORE_LOOK = "no reply; it arrives before the table is looked at"
    LATE_BEFORE_REPEAT = "no reply; it arrives after the table was looked at, before the repeated request"
    LATE_AFTER_REPEAT = "no reply; it arrives after the repeated request"
    TWICE = "delivered twice, and only the second answer arrives"
    LOCKED = "the database is locked and nothing landed"
    LOCKED_AFTER = "the database is locked, and all the same it has landed"
    CRASH_UNSENT = "the worker dies before the request leaves"
    CRASH_LANDED = "the worker dies while the reply is under way"
    CRASH_LATE = "the worker dies, and the request arrives after its successor has looked at the table"


_Request = tuple["Table", "tuple[TableRequirement, ...]", "tuple[TableUpdate, ...]"]
_LATE = {
    CommitFault.LATE_BEFORE_LOOK,
    CommitFault.LATE_BEFORE_REPEAT,
    CommitFault.LATE_AFTER_REPEAT,
    CommitFault.CRASH_LATE,
}


class FaultyCatalog(SqlCatalog):
    """A catalog whose next request to commit data meets a fault. All other requests are answered as ever."""

    def __init__(self, name: str, **properties: Any) -> None:
        super().__init__(name, **properties)
        self.fault: CommitFault | None = None
        self.on_fault: Callable[[], None] = lambda: None
        self.answers: list[str] = []
        self._late: tuple[CommitFault, _Request] | None = None

    def load_table(self, identifier: str | Identifier) -> Table:
        """Load the table as it is, after a late request that arrives now."""
        self._arrive(CommitFault.LATE_BEFORE_LOOK)
        return super().load_table(identifier)

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commit, or meet the fault."""
        request: _Request = (table, requirements, updates)
        fault, self.fault = self.fault, None
        if fault is None:
            self._arrive(CommitFault.LATE_BEFORE_REPEAT)
            self._arrive(CommitFault.CRASH_LATE)
            try:
                return self._deliver(request)
            finally:
                self._arrive(CommitFault.LATE_AFTER_REPEAT)
        try:
            return self._meet(fault, request)
        finally:
            self.on_fault()

    def _meet(self, fault: CommitFault, request: _Request) -> CommitTableResponse:
        locked = OperationalError("UPDATE iceberg_tables", {}, Exception("database is locked"))
        if fault in _LATE:
            self._late = (fault, request)
        elif fault not in (CommitFault.REFUSED, CommitFault.LOCKED, CommitFault.CRASH_UNSENT):
            self._deliver(request)
        match fault:
            case CommitFault.REFUSED:
                raise NoConnection("connection refused")
            case CommitFault.LOCKED | CommitFault.LOCKED_AFTER:
                raise locked
            case CommitFault.CRASH_UNSENT | CommitFault.CRASH_LANDED | CommitFault.CRASH_LATE:
                raise Crash
            case CommitFault.TWICE:
                return self._deliver(request)
            case _:
                raise ReadTimeout("no reply")

    def _arrive(self, when: CommitFault) -> None:
        """Deliver the late request if this is its moment; nobody hears the answer."""
        if self._late is None or self._late[0] is not when:
            return
        (_, request), self._late = self._late, None
        try:
            self._deliver(request)
        except CommitFailedException:
            self.answers.append("late request refused")
        else:
            self.answers.append("late request landed")

    def _deliver(self, request: _Request) -> CommitTableResponse:
        table, requirements, updates = request
        return super().commit_table(table, requirements, updates)


class Moment(StrEnum):
    """Where a request to the catalog meets an error."""

    LOAD = "the table is asked for"
    UNSENT = "a commit is asked for, and does not land"
    LANDED = "a commit is asked for, and lands all the same"


class RefusingCatalog(SqlCatalog):
    """A catalog that answers some requests with an error of a kind."""

    def __init__(self, name: str, **properties: Any) -> None:
        super().__init__(name, **properties)
        self._errors: list[tuple[Moment, Exception]] = []
        self.met: list[Exception] = []

    def refuse(self, moment: Moment, *errors: Exception) -> None:
        """Answer the next requests of a kind with these errors, one after the other."""
        self._errors += [(moment, error) for error in errors]

    @property
    def spent(self) -> bool:
        """Whether all errors have been met."""
        return not self._errors

    def load_table(self, identifier: str | Identifier) -> Table:
        """Load the table, or meet an error."""
        if error := self._next(Moment.LOAD):
            raise error
        return super().load_table(identifier)

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commit, or meet an error, or both."""
        if error := self._next(Moment.UNSENT):
            raise error
        if error := self._next(Moment.LANDED):
            super().commit_table(table, requirements, updates)
            raise error
        return super().commit_table(table, requirements, updates)

    def _next(self, moment: Moment) -> Exception | None:
        for each in self._errors:
            if each[0] is moment:
                self._errors.remove(each)
                self.met.append(each[1])
                return each[1]
        return None
