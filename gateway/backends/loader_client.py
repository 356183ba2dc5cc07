"""
A worker's side of the loader socket: an AdapterLoader that asks the control process.
"""

import asyncio
import itertools
import os
from pathlib import Path

import msgspec

from gateway.domain import errors
from gateway.domain.adapter import LoraAdapter
from gateway.domain.errors import BackendFailed, TargetUnavailable
from gateway.domain.job import Endpoint
from gateway.domain.loading import LoadOrder, LoadReply


class LoaderClient:
    """Any number of orders at once over one connection, which is made again after it was lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[LoadReply]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._connecting = asyncio.Lock()
        self._reader_task: asyncio.Task[None] | None = None

    async def load(self, endpoint: Endpoint, adapter: LoraAdapter, missed: int) -> int:
        writer = await self._connected()
        number = next(self._numbers)
        order = LoadOrder(
            number,
            endpoint.name,
            missed,
            adapter.task_id,
            adapter.rows,
            adapter.width,
            adapter.columns,
            adapter.dtype,
            str(adapter.weights),
            str(adapter.config),
        )
        reply_future: asyncio.Future[LoadReply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply_future
        try:
            writer.write(msgspec.json.encode(order) + b"\n")
            reply = await reply_future
        finally:
            self._waiting.pop(number, None)
        if reply.failure:
            raise _failure(reply)
        return reply.sending

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
                try:
                    name = f"/proc/self/fd/{directory}/{self._path.name}"
                    reader, self._writer = await asyncio.open_unix_connection(name)
                except OSError as error:
                    raise TargetUnavailable(f"the gateway's own loader cannot be reached: {error}") from error
                finally:
                    os.close(directory)
                self._reader_task = asyncio.create_task(self._read(reader, self._writer))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = msgspec.json.Decoder(LoadReply)
        try:
            while line := await reader.readline():
                reply = decoder.decode(line)
                future = self._waiting.get(reply.number)
                if future is not None and not future.done():
                    future.set_result(reply)
        except ConnectionError:
            pass
        finally:
            self._writer = None
            writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(TargetUnavailable("the gateway's own loader went away"))


def _failure(reply: LoadReply) -> BackendFailed:
    kind = getattr(errors, reply.failure, BackendFailed)
    return kind(reply.message) if issubclass(kind, BackendFailed) else BackendFailed(reply.message)
