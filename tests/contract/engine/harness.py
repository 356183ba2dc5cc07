"""The real engine in this process, without Triton: submit, step by hand, collect."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tailor_engine.answers import Delivery
from tailor_engine.engine import load_engine
from tailor_engine.executor import Executor
from tailor_engine.request import EngineRequest, SequenceOutput
from tailor_engine.stats import Stats

from build.reference_engine import EngineSettings, write_engine


@dataclass(eq=False)
class Listener:
    """One caller, and everything it was told. `cancelled` makes it leave."""

    outputs: list[SequenceOutput] = field(default_factory=list)
    error: str | None = None
    finals: int = 0
    cancelled: bool = False
    number: int = 0

    def is_cancelled(self) -> bool:
        return self.cancelled

    @property
    def tokens(self) -> list[int]:
        return [token for output in self.outputs for token in output.token_ids]

    def generation_logits(self) -> torch.Tensor:
        parts = [output.generation_logits for output in self.outputs if output.generation_logits is not None]
        return torch.cat(parts)


class Harness:
    """An engine over a checkpoint directory."""

    def __init__(self, checkpoint: Path, scratch: Path, parameters: dict[str, str], settings: EngineSettings) -> None:
        self.manifest = write_engine(checkpoint, "test", scratch, settings)
        self.stats: list[Stats] = []
        merged = {"max_tokens_in_paged_kv_cache": str(settings.kv_cache_tokens or 16384), "threads": "1"} | parameters
        self.engine: Executor = load_engine(scratch, merged, self._deliver, self.stats.append)

    def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            listener = delivery.caller
            assert isinstance(listener, Listener)
            assert not listener.finals, "something followed the final answer"
            if delivery.output is not None:
                listener.outputs.append(delivery.output)
            if delivery.error is not None:
                listener.error = delivery.error
            listener.finals += delivery.final

    def submit(self, request: EngineRequest) -> Listener:
        listener = Listener()
        listener.number = self.engine.submit(request, listener)
        return listener

    def finish(self, *listeners: Listener) -> None:
        """Step until all of them have their last answer."""
        for _ in range(20_000):
            if all(listener.finals for listener in listeners):
                return
            self.engine.step()
        raise AssertionError("the engine did not come to an end")

    def run(self, *requests: EngineRequest) -> list[Listener]:
        listeners = [self.submit(request) for request in requests]
        self.finish(*listeners)
        return listeners

    def answer(self, request: EngineRequest) -> Listener:
        """Run one request alone; it must not fail."""
        (listener,) = self.run(request)
        assert listener.error is None, listener.error
        return listener
