"""What is kept of an error that nobody foresaw: where it came from, and never what it said.

Messages of foreign errors may hold values of events, and such values may be personal. Types and frames cannot.
"""

from __future__ import annotations

import datetime as dt
import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.schemas.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


def place_of(error: BaseException) -> str:
    """Return the innermost place of headrace's own code that the error passed: ``sinks/loop.py:12``."""
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [place for place in frames if str(place[0].f_globals.get("__name__")).startswith("headrace.")]
    if not frames:
        return "an unknown place"
    frame, line = own[-1] if own else frames[-1]
    return _place(frame.f_code.co_filename, line)


def report_of(error: BaseException) -> str:
    """Return types and frames of an error and of the errors behind it, outermost call first, without any message."""
    return "\n\nwhile handling\n\n".join(
        "\n".join(
            [
                f"{type(each).__module__}.{type(each).__qualname__}",
                *(
                    f"  {_place(frame.filename, frame.lineno)} {frame.name}: {frame.line}"
                    for frame in traceback.extract_tb(each.__traceback__)
                ),
            ]
        )
        for each in _chain(error)
    )


def keep_crash(error: BaseException, folder: Path | None) -> Path | None:
    """Write an error's report into the mesh's ``.headrace/logs``, or the user's log folder where there is no mesh.

    Args:
        error: the error.
        folder: the mesh's folder or one below it; None: the working folder.

    Returns:
        The file, or None if it could not be written.
    """
    name = f"bug-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    try:
        file = _log_folder(folder) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(report_of(error) + "\n", encoding="utf-8")
    except OSError:
        return None
    return file


def _log_folder(folder: Path | None) -> Path:
    # Imported here: only a crash pays for it.
    import platformdirs  # noqa: PLC0415

    from headrace.schemas.environment import STATE_FOLDER  # noqa: PLC0415
    from headrace.schemas.mesh import find_root  # noqa: PLC0415

    try:
        return find_root(folder) / STATE_FOLDER / "logs"
    except UserError:
        return platformdirs.user_log_path("headrace")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _place(file: str, line: int | None) -> str:
    return f"{'/'.join(Path(file).parts[-2:])}:{line}"
