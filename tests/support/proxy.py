"""A TCP proxy that tests break: it passes, cuts, refuses, stalls, delays, and cuts after so many bytes."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from headrace.selfserve.stack.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from types import TracebackType

_CHUNK_BYTES = 1 << 16
_ANSWER_S = 30.0


class Proxy:
    """Stands between clients and one server, on a free port that stays its own.

    Its methods may be called from any thread; each returns when its effect is there. What a stall holds back is
    delivered when the stall ends: a request that everybody has given up may still arrive, as it does on a real network.

    Args:
        upstream: the server's port on this machine; it may be set later.

    Attributes:
        upstream: the server's port.
        accepted: how many connections there were.
    """

    def __init__(self, upstream: int = 0) -> None:
        self.upstream = upstream
        self.accepted = 0
        # Held as long as the proxy lives, so that nobody else gets the port while connections are refused.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind((HOST, 0))
        self.port: int = self._place.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name=f"proxy-{self.port}")
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.StreamWriter] = set()
        self._requests_flow, self._answers_flow = asyncio.Event(), asyncio.Event()
        self._delay_s = 0.0
        self._answer_bytes_left: int | None = None

    @property
    def address(self) -> str:
        """Host and port, for clients."""
        return f"{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.pass_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWER_S)
        self._place.close()

    def pass_all(self) -> None:
        """Let everything pass, at once, on connections that are there and on new ones."""
        self._do(self._pass())

    def cut(self) -> None:
        """Cut every connection that is there now. New ones are accepted."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Cut every connection and refuse new ones, until told to pass."""
        self._do(self._refuse())

    def stall(self, *, requests: bool = True, answers: bool = True) -> None:
        """Accept connections and hold back what clients send, what the server answers, or both, until told to pass."""
        self._do(self._stall(requests=requests, answers=answers))

    def delay(self, seconds: float) -> None:
        """Hold back each piece in each direction for so long, until told to pass."""
        self._do(self._slow(seconds))

    def cut_after(self, answer_bytes: int) -> None:
        """Cut every connection once the server has answered so many bytes more, in the middle of whatever it says."""
        self._do(self._cut_after(answer_bytes))

    @contextmanager
    def stalled(self, *, requests: bool = True, answers: bool = True) -> Iterator[None]:
        """Stall while the block lasts."""
        self.stall(requests=requests, answers=answers)
        try:
            yield
        finally:
            self.pass_all()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse while the block lasts."""
        self.refuse()
        try:
            yield
        finally:
            self.pass_all()

    def _do(self, action: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result(_ANSWER_S)

    async def _pass(self) -> None:
        self._delay_s = 0.0
        self._answer_bytes_left = None
        self._requests_flow.set()
        self._answers_flow.set()
        if self._server is None:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((HOST, self.port))
            self._server = await asyncio.start_server(self._serve, sock=listener)

    async def _cut(self) -> None:
        for writer in self._pairs:
            writer.transport.abort()

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _stall(self, *, requests: bool, answers: bool) -> None:
        if requests:
            self._requests_flow.clear()
        if answers:
            self._answers_flow.clear()

    async def _slow(self, seconds: float) -> None:
        self._delay_s = seconds

    async def _cut_after(self, answer_bytes: int) -> None:
        self._answer_bytes_left = answer_bytes

    async def _close(self) -> None:
        await self._refuse()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._pairs.add(writer)
        try:
            up_reader, up_writer = await asyncio.open_connection(HOST, self.upstream)
        except OSError:
            self._end(writer)
            return
        if self._server is None:
            # It was accepted just before connections were refused, when there was nothing yet to be cut.
            self._end(writer)
            self._end(up_writer)
            return
        self._pairs.add(up_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, up_writer, self._requests_flow, answers=False))
                both.create_task(self._pump(up_reader, writer, self._answers_flow, answers=True))
        except* OSError:
            pass
        finally:
            self._end(writer)
            self._end(up_writer)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._pairs.discard(writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: asyncio.Event, *, answers: bool
    ) -> None:
        while piece := await reader.read(_CHUNK_BYTES):
            await flow.wait()
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            if answers and self._answer_bytes_left is not None:
                kept, self._answer_bytes_left = piece[: self._answer_bytes_left], self._answer_bytes_left - len(piece)
                if self._answer_bytes_left < 0:
                    self._answer_bytes_left = None
                    writer.write(kept)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(writer.drain(), 1)
                    await self._cut()
                    return
            writer.write(piece)
            await writer.drain()
        raise ConnectionResetError
