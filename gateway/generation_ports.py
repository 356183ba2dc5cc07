"""
What answering a request needs from outside, stated by the one who needs it.

Decides no behaviour. Each port has contract tests that every implementation passes.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from gateway.domain.adapter import LoraAdapter
from gateway.domain.answer import Detokenizer
from gateway.domain.event import Event
from gateway.domain.job import Endpoint, Job, Target
from gateway.domain.record import RequestRecord
from gateway.domain.request import Message


class TextCodec(Protocol):
    """One base's text side."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an answer; the first is the engine's end id."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """
        Raises:
            InvalidRequest: the chat template refuses these messages.
        """
        ...

    def encode_text(self, text: str) -> list[int]: ...

    def detokenizer(self) -> Detokenizer: ...


class Backend(Protocol):
    """Anything that answers."""

    def generate(self, job: Job, target: Target) -> AsyncGenerator[list[Event], None]:
        """
        The events of a job, in batches as they arrive; closing the generator stops the work.

        Raises:
            BackendFailed: before the first batch the next target may be tried; after it the answer is cut.
        """
        ...

    def in_flight(self, endpoint: Endpoint) -> int:
        """Requests that this gateway process has under way there."""
        ...

    def resident(self, endpoint: Endpoint, adapter: LoraAdapter) -> bool:
        """Whether the endpoint is believed to hold the adapter."""
        ...

    def ready(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint said so when last asked."""
        ...


class AdapterLoader(Protocol):
    """Gets an adapter's weights into an engine, from a process of its own; any number may ask for the same at once."""

    async def load(self, endpoint: Endpoint, adapter: LoraAdapter, missed: int) -> int:
        """
        Return once the endpoint was sent the adapter, with the number of that sending.

        `missed`: the number of the sending after which the engine still did not know the adapter; 0 where nothing is
        known. Only a sending later than that one counts.

        Raises:
            BackendFailed: the engine did not take it.
        """
        ...


class Observer(Protocol):
    """Told what happened; never asked."""

    def finished(self, record: RequestRecord) -> None: ...
