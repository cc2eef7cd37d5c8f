"""Placeholders for secrets in ``mesh.yaml``: ``${env:NAME}`` and ``${file:PATH}``, filled in when they are used.

No value of a secret ever reaches an error, a log or a ``repr``: settings hold the placeholder, and only the text that
a client library is given holds the value.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from headrace.schemas.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SECRET_BYTES = 1 << 16
HOW = "write ${env:NAME} or ${file:PATH} instead"

_PLACEHOLDER = re.compile(r"\$\{(env|file):([^{}]+)\}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Keys of librdkafka, of the registry's client and of pyiceberg whose values are secrets.
_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|authorization|user[._-]?info|key[._-]pem|access[._-]key"
    r"|account[._-]key|hmac[._-]key|api[._-]?key|sas[._-]token|connection[._-]string|jaas|private",
    re.IGNORECASE,
)
# The same words in keys that hold an address, a path or a number.
_NOT_SECRET = re.compile(
    r"([._-]ur[il]|endpoint|[._-]location|[._-]path|[._-]file|expires[._-]at|[._-]ms|[._-]s|[._-]enabled?)$",
    re.IGNORECASE,
)
# user:password@ in an address.
_USER_INFO = re.compile(r"://[^/@\s]*:[^/@\s]+@")


def literal_fault(key: str, value: str) -> tuple[str, str] | None:
    """Return what is wrong with a setting's text and what to write instead; None if it may stand in the file."""
    rest = _PLACEHOLDER.sub("", value)
    if "${" in rest:
        return f"{key}: this placeholder is not known", HOW
    if any(kind == "env" and not _ENV_NAME.fullmatch(name) for kind, name in _PLACEHOLDER.findall(value)):
        return f"{key}: this is not the name of an environment variable", HOW
    secret = _SECRET_KEY.search(key) is not None and _NOT_SECRET.search(key) is None
    if (secret and value and rest == value) or _USER_INFO.search(rest):
        return f"{key}: a secret must not stand in this file", HOW
    return None


def resolve(text: str, *, setting: str, root: Path) -> str:
    """Fill in the placeholders of a setting's text. Relative files are looked for in ``root``, the mesh's folder.

    Raises:
        SettingsError: naming the setting and the variable or file, if one is missing, empty or unreadable.
    """
    return _PLACEHOLDER.sub(lambda match: _value(match[1], match[2], setting, root), text)


def _value(kind: str, name: str, setting: str, root: Path) -> str:
    if kind == "env":
        value = os.environ.get(name, "")
        if not value:
            raise SettingsError(
                f"the environment variable {name} is not set", where=setting, hint=f"export {name} before you start"
            )
        return value
    return read_secret(root / name, setting=setting, shown=name)


def read_secret(path: Path, *, setting: str, shown: str, hint: str = "") -> str:
    """Read a secret's file without the line breaks at its end.

    Raises:
        SettingsError: naming the setting and the file as ``shown``, if it is missing, unreadable, empty, larger than
            64 KiB or no UTF-8.
    """
    wanted = hint or f"put the secret into {shown}, readable for you alone"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise SettingsError(f"the file {shown} {reason}", where=setting, hint=wanted) from None
    if len(data) > MAX_SECRET_BYTES:
        raise SettingsError(f"the file {shown} is too large for a secret", where=setting, hint=wanted)
    try:
        value = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise SettingsError(f"the file {shown} is not UTF-8 text", where=setting, hint=wanted) from None
    if not value:
        raise SettingsError(f"the file {shown} is empty", where=setting, hint=wanted)
    return value
