"""Log lines as JSON, for programs that collect them: one object a line, whoever writes it.

All lines of a process go through one writer: those of headrace (structlog), those of libraries (logging, warnings), and
the errors that nobody caught. Of such errors only the kind is written, because messages may hold values of events.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

import structlog

if TYPE_CHECKING:
    from types import TracebackType

    from structlog.typing import EventDict, WrappedLogger

__all__ = ["log_as_json", "logs_are_json"]

# What every line has, in this order; the event's own fields follow.
_FIRST = ("timestamp", "level", "event")
_UNFORESEEN = "an error that nobody caught"


def log_as_json(file: TextIO) -> None:
    """Let all that is logged in this process go to a file, as JSON Lines; times are UTC."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _ordered,
            structlog.processors.JSONRenderer(serializer=partial(json.dumps, default=str)),
        ],
        logger_factory=_Factory(file),
    )
    logging.getLogger().addHandler(_Library(logging.WARNING))
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def logs_are_json() -> bool:
    """Tell whether this process logs as JSON, so that nothing else may go to stderr."""
    return isinstance(structlog.get_config()["logger_factory"], _Factory)


class _Writer:
    """Writes each line whole. A signal's handler may log while its thread is about to, hence the kind of the lock."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.RLock()

    def msg(self, line: str) -> None:
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    debug = info = warning = error = critical = log = msg


class _Factory:
    """Gives every logger the same writer."""

    def __init__(self, file: TextIO) -> None:
        self._writer = _Writer(file)

    def __call__(self, *_: Any) -> _Writer:
        return self._writer


class _Library(logging.Handler):
    """Takes the lines of libraries."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's slip must not end what it only wanted to tell of
            text = record.msg if isinstance(record.msg, str) else "a message that cannot be written"
        fields = {"logger": record.name}
        if record.exc_info and record.exc_info[0]:
            fields["kind"] = record.exc_info[0].__name__
        # A library may have levels of its own between the usual ones.
        level = min(record.levelno // 10 * 10, logging.CRITICAL)
        structlog.get_logger().log(level, text, **fields)


def _ordered(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    return {name: fields[name] for name in _FIRST} | {
        name: value for name, value in fields.items() if name not in _FIRST
    }


def _uncaught(kind: type[BaseException], _error: BaseException, _trace: TracebackType | None) -> None:
    structlog.get_logger().critical(_UNFORESEEN, kind=kind.__name__)


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    structlog.get_logger().error(
        _UNFORESEEN, kind=args.exc_type.__name__, thread=args.thread.name if args.thread else None
    )


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    structlog.get_logger().error(_UNFORESEEN, kind=args.exc_type.__name__)
