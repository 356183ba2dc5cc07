"""
One upload on its way into the registry: bounded, hashed as it comes, never whole in memory.

Decides what an upload's headers must say and how long one piece may take. Does not know what is in it.
"""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from gateway.adapters.archive import MEDIA_TYPE, ArchiveReader
from gateway.domain.errors import InvalidRequest
from gateway.domain.registry_errors import RegistryError, UploadInvalid, UploadTooLarge

_PIECE_PATIENCE_S = 30.0
_BATCH_BYTES = 1 << 20
_DRAIN_BYTES = 16 << 20


def declared_bytes(request: Request, most_bytes: int) -> int:
    """
    The upload's length by its own word, 0 where it says none.

    Raises:
        UploadInvalid: it is not of the one media type, or is compressed.
        UploadTooLarge: it says so itself.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != MEDIA_TYPE:
        raise UploadInvalid(
            f"Send the adapter as {MEDIA_TYPE}, not {media or 'without a content-type'}.", "content-type"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UploadInvalid("Send the archive without compression.", "content-encoding")
    text = request.headers.get("content-length", "0")
    declared = int(text) if text.isdecimal() and len(text) < 20 else 0
    if declared > most_bytes:
        raise UploadTooLarge(f"The upload has {declared:,} bytes; this gateway takes at most {most_bytes:,}.")
    return declared


async def receive_archive(request: Request, reader: ArchiveReader) -> None:
    """
    Feed the whole body to `reader`.

    Raises:
        RegistryError: it does not fit; a moderate rest is read and dropped, so that the sender gets to see the answer.
        InvalidRequest: a piece did not arrive in time.
        ClientDisconnect: the sender has left.
    """
    pieces = _pieces(request)
    batch = bytearray()
    try:
        async for piece in pieces:
            batch += piece
            if len(batch) >= _BATCH_BYTES:
                await asyncio.to_thread(reader.feed, bytes(batch))
                batch.clear()
        await asyncio.to_thread(reader.feed, bytes(batch))
    except RegistryError:
        await _drain(pieces)
        raise


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_PIECE_PATIENCE_S):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise InvalidRequest(
                f"The upload stood still for {_PIECE_PATIENCE_S:.0f} seconds; repeat it.", code="request_timeout"
            ) from error
        yield piece


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    left = _DRAIN_BYTES
    try:
        async for piece in pieces:
            left -= len(piece)
            if left < 0:
                return
    except (InvalidRequest, ClientDisconnect):
        return
