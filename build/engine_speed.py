"""
How fast the reference engine decodes, beside a bare transformers loop on the same machine.

    python -m build.engine_speed --checkpoint .cache/models/smollm2-135m-instruct

Prints tokens per second of one stream and of several, their ratio, and the bare loop's, with the same number of
threads. Runs are interleaved and the best of each is taken; with --cpu-time seconds of the processor are counted
instead of the clock's, which a busy machine disturbs less. Does not touch Triton: it measures the engine in process.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from build.reference_engine import TEMPLATE, EngineSettings, write_engine

sys.path.insert(0, str(TEMPLATE / "1"))

from tailor_engine.answers import Delivery
from tailor_engine.engine import load_engine
from tailor_engine.executor import Executor
from tailor_engine.request import EngineRequest

Clock = Callable[[], float]
PROMPT_TOKENS = 46
NEW_TOKENS = 64


class _Present:
    """A caller that stays."""

    def is_cancelled(self) -> bool:
        return False


def engine_rate(engine: Executor, produced: Callable[[], int], streams: int, vocab_size: int, clock: Clock) -> float:
    """Tokens per second of `streams` together, prefill left out."""
    generator = torch.Generator().manual_seed(streams)
    for _ in range(streams):
        ids = torch.randint(100, vocab_size, (PROMPT_TOKENS,), generator=generator).tolist()
        engine.submit(EngineRequest(tuple(ids), NEW_TOKENS, streaming=True), _Present())
    before = produced()
    while produced() - before < streams:
        engine.step()
    start, counted = clock(), produced()
    while produced() - before < streams * NEW_TOKENS:
        engine.step()
    return (produced() - counted) / (clock() - start)


def bare_rate(model: torch.nn.Module, vocab_size: int, clock: Clock) -> float:
    """Tokens per second of one stream: the plainest loop over a transformers model with its own cache."""
    ids = torch.randint(100, vocab_size, (1, PROMPT_TOKENS), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        output = model(input_ids=ids, use_cache=True)
        cache, token = output.past_key_values, output.logits[:, -1:].argmax(-1)
        start = clock()
        for _ in range(NEW_TOKENS - 1):
            output = model(input_ids=token, past_key_values=cache, use_cache=True)
            cache, token = output.past_key_values, output.logits[:, -1:].argmax(-1)
    return (NEW_TOKENS - 1) / (clock() - start)


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m build.engine_speed", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path(".cache/models/smollm2-135m-instruct"))
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true")
    arguments = parser.parse_args()
    clock: Clock = time.process_time if arguments.cpu_time else time.perf_counter
    count = 0

    def deliver(deliveries: Sequence[Delivery]) -> None:
        nonlocal count
        count += sum(len(delivery.output.token_ids) for delivery in deliveries if delivery.output is not None)

    with tempfile.TemporaryDirectory() as scratch:
        manifest = write_engine(arguments.checkpoint, "speed", Path(scratch), EngineSettings(kv_reuse=False))
        parameters = {"max_tokens_in_paged_kv_cache": "8192", "threads": str(arguments.threads)}
        engine = load_engine(Path(scratch), parameters, deliver, lambda stats: None)
        model = AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.float32).eval()
        bare, one, many = [], [], []
        for _ in range(arguments.rounds):
            bare.append(bare_rate(model, manifest.vocab_size, clock))
            one.append(engine_rate(engine, lambda: count, 1, manifest.vocab_size, clock))
            many.append(engine_rate(engine, lambda: count, arguments.streams, manifest.vocab_size, clock))
    unit = "processor second" if arguments.cpu_time else "second"
    print(f"threads {torch.get_num_threads()}; tokens per {unit}, best of {arguments.rounds} rounds")
    print(f"bare transformers loop, 1 stream   {max(bare):8.1f}")
    print(f"reference engine, 1 stream         {max(one):8.1f}   {max(one) / max(bare):.2f} of the bare loop")
    together = f"reference engine, {arguments.streams:2} streams"
    print(f"{together:34} {max(many):8.1f}   {max(many) / max(one):.2f} times one stream")
    return 0


if __name__ == "__main__":
    sys.exit(main())
