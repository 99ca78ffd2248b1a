"""A pooler in transaction mode, just enough of one: each transaction gets another session of the server."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SSL, _GSS, _CANCEL = (code.to_bytes(4) for code in (80877103, 80877104, 80877102))


class Pooler:
    """Listens on a port of this machine and passes transactions on to a server's socket.

    Sessions are lent in turn and never cleaned: whatever a client leaves in one, or expects to find, goes wrong.
    """

    def __init__(self, server: Path, sessions: int = 3) -> None:
        self.transactions = 0
        self._server, self._sessions = server, sessions
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._hello = b""
        self._opening = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one client from its first word to its last."""
        try:
            startup = await _untyped(reader)
            while startup[4:8] in (_SSL, _GSS):
                writer.write(b"N")
                startup = await _untyped(reader)
            if startup[4:8] == _CANCEL:
                return
            async with self._opening:
                while len(self._idle) < self._sessions and not self._hello:
                    await self._connect(startup)
                self._hello = b"".join(self._greeting)
            writer.write(self._hello)
            await self._transactions(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _connect(self, startup: bytes) -> None:
        server = await asyncio.open_unix_connection(str(self._server))
        server[1].write(startup)
        self._greeting = []
        while not self._greeting or self._greeting[-1][:1] != b"Z":
            self._greeting.append(await _message(server[0]))
        assert self._greeting[0][:1] == b"R", self._greeting
        self._idle.append(server)

    async def _transactions(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = asyncio.ensure_future(_message(reader))
        while (await asyncio.wait([said]))[0] and said.result()[:1] != b"X":
            while not self._idle:
                await asyncio.sleep(0.001)
            session = self._idle.popleft()
            answered, unanswered = asyncio.ensure_future(_message(session[0])), 0
            self.transactions += 1
            state = b"T"
            while unanswered or state != b"I":
                await asyncio.wait([said, answered], return_when=asyncio.FIRST_COMPLETED)
                if said.done():
                    message = said.result()
                    unanswered += message[:1] in b"QS"
                    session[1].write(message)
                    said = asyncio.ensure_future(_message(reader))
                if answered.done():
                    message = answered.result()
                    writer.write(message)
                    if message[:1] == b"Z":
                        unanswered, state = unanswered - 1, message[5:6]
                        if not unanswered and state == b"I":
                            break
                    answered = asyncio.ensure_future(_message(session[0]))
            self._idle.append(session)

    async def close(self) -> None:
        """Hangs up on the server."""
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()


async def _untyped(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length) - 4)


async def _message(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(1) + await _untyped(reader)


@contextmanager
def pooled(server: Path) -> Iterator[tuple[int, Pooler]]:
    """Runs a pooler in a thread; yields its port and itself."""
    loop = asyncio.new_event_loop()
    pooler = Pooler(server)
    listening = loop.run_until_complete(asyncio.start_server(pooler.serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def close() -> None:
        listening.close()
        await pooler.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    try:
        yield listening.sockets[0].getsockname()[1], pooler
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
