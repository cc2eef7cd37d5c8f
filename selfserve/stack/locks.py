"""The block in which a stack is changed: one process at a time, and what the disk refuses said in our own words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from headrace.schemas.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.selfserve.stack import Progress


@contextmanager
def disk_errors() -> Iterator[None]:
    """Map what the operating system refuses within the block.

    Raises:
        Unavailable: a file or a program could not be read, written or started.
    """
    try:
        yield
    except OSError as error:
        raise Unavailable(
            error.strerror or type(error).__name__,
            where=str(error.filename) if error.filename else None,
            hint="look for a full disk, or a folder that this user may not write to",
        ) from error


@contextmanager
def held(path: Path, timeout_s: float, holder: str, progress: Progress) -> Iterator[None]:
    """Hold the lock of a file for the block. The kernel gives it back when the process ends, whatever ends it.

    Args:
        path: the lock's file.
        timeout_s: how long to wait for another holder.
        holder: what another holder does, as a clause ("another headrace starts this stack").
        progress: is told if this has to wait.

    Raises:
        Unavailable: the lock was not free in time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting: {holder}")
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout:
            raise Unavailable(
                f"{holder}, and has not finished in {timeout_s:.0f} s", where=str(path), hint="see what it waits for"
            ) from None
    try:
        yield
    finally:
        lock.release()
