"""
The control process's ear for its workers: orders to load adapters, over a socket only this gateway's user can open.

One line of JSON for an order, one for its reply, in any order of replies.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from gateway.domain.adapter import LoraAdapter
from gateway.domain.errors import BackendFailed, TargetUnavailable
from gateway.domain.job import Endpoint
from gateway.domain.loading import LoadOrder, LoadReply
from gateway.ports import AdapterLoader

_log = logging.getLogger(__name__)


class LoaderSocket:
    """Serves an AdapterLoader to other processes of this gateway."""

    def __init__(self, loader: AdapterLoader, endpoints: Mapping[str, Endpoint]) -> None:
        self._loader = loader
        self._endpoints = endpoints
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, path: Path) -> None:
        """Listen until cancelled. A socket left by a process that is gone is replaced."""
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            with suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=directory)
            # By way of the folder's descriptor: a socket's own path may have only some 100 bytes.
            server = await asyncio.start_unix_server(self._connected, f"/proc/self/fd/{directory}/{path.name}")
            os.chmod(path.name, 0o600, dir_fd=directory)
            async with server:
                await server.serve_forever()
        finally:
            # Ended here, or the loop's end would cancel who reads them and log that as an error.
            for writer in self._writers:
                writer.close()
            os.close(directory)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = msgspec.json.Decoder(LoadOrder)
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                task = asyncio.create_task(self._answer(decoder.decode(line), writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (ConnectionError, msgspec.DecodeError) as error:
            _log.warning("a worker's connection ended: %s", error)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, order: LoadOrder, writer: asyncio.StreamWriter) -> None:
        reply = await self._reply(order)
        writer.write(msgspec.json.encode(reply) + b"\n")

    async def _reply(self, order: LoadOrder) -> LoadReply:
        adapter = LoraAdapter(
            order.task_id, order.rows, order.width, order.columns, order.dtype, Path(order.weights), Path(order.config)
        )
        try:
            endpoint = self._endpoints[order.endpoint]
            return LoadReply(order.number, await self._loader.load(endpoint, adapter, order.missed))
        except BackendFailed as error:
            return LoadReply(order.number, 0, type(error).__name__, error.message)
        except Exception:
            _log.exception("an adapter could not be loaded")
            return LoadReply(order.number, 0, TargetUnavailable.__name__, "the gateway failed to load the adapter")
