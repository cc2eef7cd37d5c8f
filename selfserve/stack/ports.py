"""TCP ports of 127.0.0.1: which are free, and which answer."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Java does: without it a port counts as taken for a minute after its server closed its last connection.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Return whether something accepts connections on this port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def choose(names: Sequence[str], remembered: Mapping[str, int]) -> dict[str, int]:
    """Return a free port for each name: the remembered one where it is still free, otherwise one that the kernel picks.

    Another process may take a port between this call and its use; the caller has to look.
    """
    chosen = {name: remembered[name] for name in names if name in remembered and is_free(remembered[name])}
    with ExitStack() as held:
        for name in names:
            if name not in chosen:
                # Held until all are chosen, so that the kernel does not hand out the same one twice.
                probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                probe.bind((HOST, 0))
                chosen[name] = probe.getsockname()[1]
    return chosen
