"""The proxy of the fault tests does what it says: else they would pass for nothing."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from headrace.selfserve.stack.ports import HOST
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


class Echo:
    """A server that answers with what it is sent."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard = b""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(4096):
                self.heard += data
                connection.sendall(data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as proxy:
        yield proxy


def opened(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=60)


def asked(connection: socket.socket, data: bytes) -> bytes:
    """Send something; return as much of an answer, less where the connection is cut."""
    answer = b""
    with suppress(OSError):
        connection.sendall(data)
        while len(answer) < len(data) and (some := connection.recv(4096)):
            answer += some
    return answer


def test_it_passes_everything(proxy: Proxy) -> None:
    with opened(proxy) as one, opened(proxy) as two:
        assert asked(one, b"one") == b"one"
        assert asked(two, b"two" * 100_000) == b"two" * 100_000
    assert proxy.accepted == 2


def test_it_cuts_what_is_there_and_accepts_what_comes(proxy: Proxy) -> None:
    with opened(proxy) as one:
        assert asked(one, b"one") == b"one"
        proxy.cut()
        assert asked(one, b"two") == b""
    with opened(proxy) as another:
        assert asked(another, b"three") == b"three"


def test_it_refuses_and_has_its_port_back(proxy: Proxy) -> None:
    with opened(proxy) as one:
        assert asked(one, b"one") == b"one"
        with proxy.refusing():
            assert asked(one, b"two") == b""
            with pytest.raises(OSError, match="refused"):
                opened(proxy)
    with opened(proxy) as another:
        assert asked(another, b"three") == b"three"


@pytest.mark.parametrize("answers", [False, True])
def test_it_stalls_and_delivers_late(proxy: Proxy, echo: Echo, *, answers: bool) -> None:
    with opened(proxy) as one:
        assert asked(one, b"one") == b"one"
        one.settimeout(0.3)
        with proxy.stalled(requests=not answers, answers=answers):
            one.sendall(b"two")
            with pytest.raises(TimeoutError):
                one.recv(10)
            assert eventually(lambda: echo.heard == b"onetwo") if answers else echo.heard == b"one"
        one.settimeout(60)
        assert one.recv(10) == b"two"


def test_it_delays_each_piece(proxy: Proxy) -> None:
    with opened(proxy) as one:
        proxy.delay(0.2)
        began_s = time.monotonic()
        assert asked(one, b"one") == b"one"
        assert time.monotonic() - began_s >= 0.4


def test_it_cuts_in_the_middle_of_an_answer_once(proxy: Proxy) -> None:
    with opened(proxy) as one:
        proxy.cut_after(4)
        assert asked(one, b"three") == b"thre"
    with opened(proxy) as another:
        assert asked(another, b"three") == b"three"


def test_a_server_that_is_away_cuts_its_clients_off(proxy: Proxy, echo: Echo) -> None:
    with Proxy() as other, socket.create_server((HOST, 0)) as free:
        other.upstream = free.getsockname()[1]
        free.close()
        with opened(other) as one:
            assert asked(one, b"one") == b""
