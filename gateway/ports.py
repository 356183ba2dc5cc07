"""
What the use cases need from outside, as small protocols. Each belongs to its caller.

Nothing here knows Triton, Redis or HTTP. What the registry needs is in gateway/registry/ports.py.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from gateway.domain.adapter import LoraAdapter
from gateway.domain.answer import Detokenizer
from gateway.domain.event import Event
from gateway.domain.job import Endpoint, Job, Target
from gateway.domain.profile import ModelName, Profile
from gateway.domain.record import RequestRecord
from gateway.domain.request import Message
from gateway.domain.tenant import Tenant


class ProfileCatalog(Protocol):
    """
    Which profile a model name means, for one tenant.

    Answers from memory and never waits. While the index behind it cannot be reached, the last good copy answers.
    """

    @property
    def loaded(self) -> bool:
        """Whether the index has been read once; before that every name is unknown."""
        ...

    def resolve(self, tenant: Tenant, name: ModelName) -> Profile | None:
        """
        The version that `name` selects, or None: unknown, retired, not granted, or not servable by any engine here.

        The tenant's `bases` say which base models it may call bare; its profiles may stand on any.
        """
        ...

    def visible(self, tenant: Tenant) -> Sequence[Profile]:
        """Everything the tenant may name, at its live version: its own, what others granted, its bases."""
        ...


class TextCodec(Protocol):
    """Text to token ids and back, for one base."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """A conversation through the base's chat template."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """Text as it stands."""
        ...

    def detokenizer(self) -> Detokenizer:
        """A fresh one, for one answer."""
        ...


class Backend(Protocol):
    """Anything that answers."""

    def generate(self, job: Job, target: Target) -> AsyncGenerator[list[Event], None]:
        """
        The answer, in the batches it arrived in. Closing the generator cancels the engine's work.

        Raises:
            BackendFailed: it did not answer; nothing has been yielded, or the answer is incomplete.
        """
        ...

    def in_flight(self, endpoint: Endpoint) -> int:
        """Requests of this process that the endpoint is working on."""
        ...

    def ready(self, endpoint: Endpoint) -> bool:
        """Whether it said so when last asked."""
        ...

    def resident(self, endpoint: Endpoint, adapter: LoraAdapter) -> bool:
        """Whether the endpoint is believed to hold the adapter. A claim, not a fact."""
        ...


class AdapterLoader(Protocol):
    """Sends an adapter's weights to an endpoint, once for all that want it."""

    async def load(self, endpoint: Endpoint, adapter: LoraAdapter, missed: int) -> int:
        """
        The number of a sending that is later than `missed`, the last one the engine turned out not to hold.

        Raises:
            BackendFailed: the engine did not take it.
        """
        ...


class AdapterPrimer(Protocol):
    """Sends an adapter's weights to an engine, which has no other way to be told of them than a request."""

    async def prime(self, endpoint: Endpoint, adapter: LoraAdapter) -> None:
        """
        Raises:
            BackendFailed: the engine did not take it.
        """
        ...


class SendingBook(Protocol):
    """
    Which sending of an adapter each endpoint got last, shared by all gateways; numbers only ever grow.

    Where what is behind it is away, each process goes by its own book: engines ignore a second copy.
    """

    async def last(self, endpoint: str, task_id: int) -> int:
        """The number of the last sending, 0 where there was none."""
        ...

    async def claim(self, endpoint: str, task_id: int, hold_s: float) -> bool:
        """Take the right to send, which lapses after `hold_s`; False while another has it."""
        ...

    async def sent(self, endpoint: str, task_id: int, after: int) -> int:
        """Record a sending under a number greater than `after`, which is returned; gives the right back."""
        ...

    async def give_up(self, endpoint: str, task_id: int) -> None:
        """Give the right back without a sending."""
        ...


class Observer(Protocol):
    """Is told of every request when it has ended."""

    def started(self, record: RequestRecord) -> None: ...

    def finished(self, record: RequestRecord) -> None:
        """Exactly once for each that was started."""
        ...
