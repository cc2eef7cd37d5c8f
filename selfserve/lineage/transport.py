"""OpenLineage's client: where it gets its settings from, and what is wrong with them.

The settings are the library's own, under its own names: the file that ``OPENLINEAGE_CONFIG`` names, ``openlineage.yml``
here or in ``~/.openlineage``, and the environment's ``OPENLINEAGE_URL`` or ``OPENLINEAGE__TRANSPORT__…``.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.schemas.errors import SettingsError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from openlineage.client import OpenLineageClient

__all__ = ["Heard", "is_switched_off", "open_client"]

CONFIG_VARIABLE = "OPENLINEAGE_CONFIG"
_SECRETS = ("OPENLINEAGE_URL", "OPENLINEAGE_API_KEY")
_WHERE = "settings of OpenLineage"
_HOW = f"set OPENLINEAGE_URL, or write a transport into openlineage.yml or the file that {CONFIG_VARIABLE} names"
_MEND = "mend openlineage.yml, or the OPENLINEAGE_… variables of the environment"
_LOGGER = "openlineage.client"
# What is shorter than this is a number or a switch, and would be found in any message.
_SHORTEST_SECRET = 4


class Heard(logging.Handler):
    """Counts the errors that the library logs: some of its transports tell of a failure in no other way.

    Its lines go nowhere else meanwhile, because they may repeat settings.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors = 0

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - a line may hold a secret; that it came is enough
        """Count a line."""
        self.errors += 1

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen while the block lasts."""
        logger = logging.getLogger(_LOGGER)
        before = logger.propagate
        logger.addHandler(self)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.propagate = before


def open_client() -> OpenLineageClient:
    """Make the client that the settings ask for. Nothing is sent yet.

    Raises:
        UserError: if the package is not there.
        SettingsError: if the settings cannot be read, make no sense to the library, or name no transport.
    """
    try:
        from openlineage.client import OpenLineageClient  # noqa: PLC0415 - an optional package
        from openlineage.client.transport.noop import NoopConfig, NoopTransport  # noqa: PLC0415
    except ImportError:
        raise UserError(
            "lineage needs openlineage-python", hint="pip install 'headrace[openlineage]', or leave --openlineage out"
        ) from None
    _check_named_file()
    heard = Heard()
    secrets = {os.environ.get(name, "") for name in _SECRETS}
    with heard.listening():
        try:
            settings = OpenLineageClient(transport=NoopTransport(NoopConfig())).config.transport
            secrets |= set(_texts(settings))
            client = OpenLineageClient()
        except Exception as error:  # noqa: BLE001 - the library and its transports raise anything for a wrong setting
            raise SettingsError(
                f"OpenLineage's client refuses them: {_hushed(str(error), secrets)}", where=_WHERE, hint=_MEND
            ) from None
    if heard.errors:
        raise SettingsError("openlineage.yml cannot be read, is empty or no YAML", where=_WHERE, hint=_MEND)
    if client.transport.kind == "console" and not (client.config.transport or {}).get("type"):
        raise SettingsError("they do not say where lineage goes", where=_WHERE, hint=_HOW)
    return client


def is_switched_off(client: OpenLineageClient) -> bool:
    """Tell whether the settings say that nothing is sent (``OPENLINEAGE_DISABLED``)."""
    return client.transport.kind == "noop"


def _check_named_file() -> None:
    """Refuse a file that is named and not there: the library would go on without it."""
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not (Path(path).is_file() and os.access(path, os.R_OK)):
        raise SettingsError(
            "there is no such file, or it may not be read", where=f"{CONFIG_VARIABLE}: {path}", hint="correct the path"
        )


def _texts(settings: Any) -> Iterator[str]:
    """Yield what settings hold: any of it may be a secret, but for the name of a kind."""
    match settings:
        case dict():
            for key, value in settings.items():
                if key != "type":
                    yield from _texts(value)
        case list():
            for value in settings:
                yield from _texts(value)
        case str():
            yield settings
        case _:
            pass


def _hushed(text: str, secrets: Iterable[str]) -> str:
    """Return a message of the library without what may be secret in it."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "…")
    return text.splitlines()[0] if text else "it does not say why"
