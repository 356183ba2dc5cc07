"""
The engine's loop: fetch, admit, run one step, pick tokens, answer.

Decides the order of these and what happens to a request that fails, is cancelled or is stopped. Does not know Triton:
answers go to a function, callers are asked through a one-method port. One thread runs the loop; submit and stop may be
called from any.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

import torch

from .adapter import Adapter, build_adapter, check_lora_form
from .batch import pack
from .checkpoint import ModelConfig
from .decoder import Decoder
from .errors import RequestError, as_executor_text, as_forward_text, queue_full
from .kv_blocks import BlockPool, PoolStats, prefix_digests
from .kv_cache import KvCache
from .lora_cache import LoraCache
from .manifest import EngineOptions, Manifest
from .request import EngineRequest, FinishReason, LoraInput, PerfMetrics, SequenceOutput
from .sampling import Picked, count_tokens, pick
from .scheduler import Scheduler, SchedulerLimits, Share
from .sequence import Caller, Job, Sequence
from .validation import check_request
from .words import ends_with_word

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Delivery:
    """
    One thing to tell one caller.

    output  content, or None
    error   the text of a failure, or None; nothing follows it for this request
    final   nothing follows for this request
    """

    caller: Caller
    request: EngineRequest
    output: SequenceOutput | None
    error: str | None
    final: bool


@dataclass(frozen=True)
class Stats:
    """
    Load, as TensorRT-LLM's metrics count it.

    active     fetched requests: running or waiting for room in the KV cache
    scheduled  of these, in the last step; context: of these, still reading their prompt
    queued     not yet fetched
    """

    active: int
    max: int
    scheduled: int
    context: int
    queued: int
    context_tokens: int
    iteration: int
    tokens_per_block: int
    blocks: PoolStats
    lora_bytes: int

    @property
    def waiting(self) -> int:
        return self.active - self.scheduled


@dataclass(eq=False)
class _Inbox:
    """What other threads have handed in. Guarded by `ready`."""

    ready: threading.Condition = field(default_factory=threading.Condition)
    jobs: deque[Job] = field(default_factory=deque)
    payload_bytes: int = 0
    closed: bool = False


class Executor:
    """In-flight batching over one decoder."""

    def __init__(
        self,
        manifest: Manifest,
        options: EngineOptions,
        config: ModelConfig,
        decoder: Decoder,
        deliver: Callable[[Seq[Delivery]], None],
        on_stats: Callable[[Stats], None],
        fresh_seed: Callable[[], int],
    ) -> None:
        """
        deliver     told everything that one step produced, at once, from the engine's thread
        fresh_seed  64 random bits for a request that brings no seed
        """
        self._manifest = manifest
        self._options = options
        self._config = config
        self._decoder = decoder
        self._deliver = deliver
        self._on_stats = on_stats
        self._fresh_seed = fresh_seed
        self._block = manifest.kv_reuse.tokens_per_block
        blocks = options.kv_cache_tokens // self._block
        pool = BlockPool(blocks)
        self._cache = KvCache(
            config.num_layers, config.num_kv_heads, config.head_size, blocks, self._block, manifest.torch_dtype
        )
        limits = SchedulerLimits(
            manifest.max_batch_size, self._block, options.prefill_chunk_tokens, options.max_num_tokens
        )
        self._scheduler = Scheduler(limits, pool)
        self._pool = pool
        self._loras = LoraCache(0 if manifest.lora is None else manifest.lora.cache_bytes)
        self._inbox = _Inbox()
        self._active: dict[int, Job] = {}
        self._next_number = 1
        self._iteration = 0
        self._poll_ns = options.cancellation_check_period_ms * 1_000_000

    # Called from any thread.

    def submit(self, request: EngineRequest, caller: Caller) -> int:
        """
        Queue a request.

        Returns:
            the executor's number of it, for `stop`.

        Raises:
            EnqueueError: the queue is full.
        """
        inbox, payload = self._inbox, request.payload_bytes
        with inbox.ready:
            full = len(inbox.jobs) >= self._options.max_queue_size
            heavy = inbox.jobs and inbox.payload_bytes + payload > self._options.max_queue_bytes
            if full or heavy:
                raise queue_full(self._options.max_queue_size)
            number = self._next_number
            self._next_number += 1
            inbox.jobs.append(Job(number, request, caller, time.monotonic_ns()))
            inbox.payload_bytes += payload
            inbox.ready.notify()
        return number

    def stop(self, number: int) -> None:
        """End a request early; its caller gets what it produced so far. An unknown number is not an error."""
        with self._inbox.ready:
            job = self._active.get(number) or next((job for job in self._inbox.jobs if job.number == number), None)
            if job is not None:
                job.stopped = True

    def close(self) -> None:
        """End the loop after the current step; what is still active is answered with an error."""
        with self._inbox.ready:
            self._inbox.closed = True
            self._inbox.ready.notify()

    # The engine's thread.

    def run(self) -> None:
        """Step until closed; sleep while there is nothing to do."""
        self._on_stats(self.stats(()))
        while True:
            with self._inbox.ready:
                while not (self._inbox.jobs or self._active or self._inbox.closed):
                    self._inbox.ready.wait()
                closed = self._inbox.closed
            if closed:
                break
            self.step()
        self._fail_everything("the engine is shutting down")

    def step(self) -> None:
        """One iteration. A failure of the forward pass fails the requests that were in it, and no others."""
        deliveries = self._drop_cancelled()
        deliveries += self._fetch()
        while admitted := self._scheduler.admit():
            for sequence, allocation in admitted:
                self._cache.prepare(allocation)
                sequence.first_scheduled_ns = time.monotonic_ns()
        shares = self._scheduler.shares()
        if shares:
            self._iteration += 1
            try:
                deliveries += self._advance(shares)
            except Exception as error:
                log.exception("the forward step failed")
                deliveries += self._fail({share.sequence.job.number: share.sequence.job for share in shares}.values(), error)
        if deliveries:
            self._deliver(deliveries)
        self._on_stats(self.stats(shares if self._active else ()))

    def stats(self, shares: Seq[Share]) -> Stats:
        """The load, given what the last step ran."""
        reading = [share for share in shares if share.start < share.sequence.prompt_length]
        return Stats(
            active=sum(len(job.sequences) for job in self._active.values()),
            max=self._manifest.max_batch_size,
            scheduled=sum(share.sequence.extent is not None for share in shares),
            context=sum(share.sequence.extent is not None for share in reading),
            queued=len(self._inbox.jobs),
            context_tokens=sum(share.end - share.start for share in reading),
            iteration=self._iteration,
            tokens_per_block=self._block,
            blocks=self._pool.stats(),
            lora_bytes=self._loras.held_bytes,
        )

    def _drop_cancelled(self) -> list[Delivery]:
        """Ask callers whether they are still there, before their first token as well as after."""
        now = time.monotonic_ns()
        deliveries: list[Delivery] = []
        with self._inbox.ready:
            queued = [job for job in self._inbox.jobs if job.stopped or job.next_poll_ns <= now]
        for job in queued:
            if self._gone(job, now):
                with self._inbox.ready:
                    self._inbox.jobs.remove(job)
                    self._inbox.payload_bytes -= job.request.payload_bytes
                deliveries.append(Delivery(job.caller, job.request, None, None, True))
        for job in [job for job in self._active.values() if job.stopped or job.next_poll_ns <= now]:
            if not self._gone(job, now):
                continue
            unfinished = [sequence for sequence in job.sequences if sequence.finish_reason is None]
            for sequence in unfinished:
                self._finish(sequence, FinishReason.CANCELLED)
            outputs = [self._output(sequence) for sequence in unfinished] if job.stopped else []
            deliveries += [Delivery(job.caller, job.request, output, None, False) for output in outputs[:-1]]
            deliveries.append(Delivery(job.caller, job.request, outputs[-1] if outputs else None, None, True))
            self._end(job)
        return deliveries

    def _gone(self, job: Job, now: int) -> bool:
        if job.stopped:
            return True
        job.next_poll_ns = now + self._poll_ns
        return job.caller.is_cancelled()

    def _fetch(self) -> list[Delivery]:
        """Take requests in while there is a place in the batch for all their sequences."""
        failures: list[Delivery] = []
        while True:
            active = sum(len(job.sequences) for job in self._active.values())
            with self._inbox.ready:
                jobs = self._inbox.jobs
                if not jobs:
                    return failures
                wanted = jobs[0].request.num_return_sequences
                if active and active + wanted > self._manifest.max_batch_size:
                    return failures
                job = jobs.popleft()
                self._inbox.payload_bytes -= job.request.payload_bytes
            try:
                self._start(job)
            except RequestError as error:
                text = as_executor_text(job.number, error)
                failures.append(Delivery(job.caller, job.request, None, text, True))
            except Exception as error:
                log.exception("request %d could not be started", job.number)
                text = as_executor_text(job.number, error)
                failures.append(Delivery(job.caller, job.request, None, text, True))

    def _start(self, job: Job) -> None:
        request = job.request
        new_tokens = check_request(request, self._manifest, self._options)
        if new_tokens < request.max_new_tokens:
            log.warning(
                "Number of requested output tokens of request %d is changed from %d to %d: prompt and completion share "
                "%d tokens",
                job.number,
                request.max_new_tokens,
                new_tokens,
                self._manifest.max_total_tokens,
            )
        digests = self._digests(request, request.input_ids)
        sampling = request.sampling
        seed = self._fresh_seed() if sampling.seed is None else sampling.seed
        adapter = None if request.lora is None else self._take_adapter(request.lora)
        for index in range(request.num_return_sequences):
            if index and adapter is not None:
                self._loras.use(adapter.task_id)
            sequence = Sequence(
                job=job,
                index=index,
                seed=seed + index,
                max_new_tokens=new_tokens,
                adapter=adapter,
                tokens=list(request.input_ids),
                prompt_length=len(request.input_ids),
                prompt_digests=[] if request.wants.context_logits else digests,
            )
            if sampling.penalised:
                sequence.counts = count_tokens(sequence, self._manifest.vocab_size)
            job.sequences.append(sequence)
            self._scheduler.add(sequence)
        with self._inbox.ready:
            self._active[job.number] = job

    def _take_adapter(self, lora: LoraInput) -> Adapter:
        """A resident id wins over weights that came with it, as in TensorRT-LLM: they are not even looked at twice."""
        check_lora_form(lora)
        ability = self._manifest.lora
        if lora.task_id is None or ability is None:
            raise RequestError("lora_task_id must be set for LoRA inference")
        if lora.weights is not None:
            if lora.task_id not in self._loras:
                self._loras.store(build_adapter(lora, ability, self._config, self._manifest.torch_dtype))
        return self._loras.use(lora.task_id)

    def _digests(self, request: EngineRequest, tokens: Seq[int]) -> list[bytes]:
        """Names of the full blocks of a sequence, or none where they must not be shared."""
        if not self._manifest.kv_reuse.enabled:
            return []
        extra_ids = None if request.prompt_table is None else request.prompt_table.extra_ids
        if extra_ids is not None:
            vocab_size = self._manifest.vocab_size
            if any(token >= vocab_size and extra == 0 for token, extra in zip(request.input_ids, extra_ids, strict=True)):
                return []  # a virtual token without an extra id names no table: equal keys would not mean equal rows
        task_id = None if request.lora is None else request.lora.task_id
        return prefix_digests(tokens, extra_ids, task_id, self._block)

    def _advance(self, shares: Seq[Share]) -> list[Delivery]:
        step = pack(shares, self._manifest.vocab_size, self._block)
        logits = self._decoder.forward(step, self._cache)
        rows: list[int] = []
        picking: list[Sequence] = []
        row = 0
        for share in shares:
            sequence, wants = share.sequence, share.sequence.request.wants
            sequence.written = share.end
            in_prompt = share.start < sequence.prompt_length
            count = share.end - share.start if wants.context_logits and in_prompt else int(share.samples)
            if wants.context_logits and in_prompt:
                sequence.context_logits.append(logits[row : row + count].clone())
            if share.samples:
                rows.append(row + count - 1)
                picking.append(sequence)
                if in_prompt and sequence.extent is not None:
                    self._pool.publish(sequence.extent, sequence.prompt_digests)
            row += count
        if not picking:
            return []
        chosen = logits if len(rows) == logits.shape[0] else logits[rows]
        for place, sequence in enumerate(picking):
            if sequence.request.wants.generation_logits:
                sequence.generation_logits.append(chosen[place].clone())
        picked = pick(chosen, picking, self._options.normalize_log_probs)
        now = time.monotonic_ns()
        return [
            delivery
            for sequence, choice in zip(picking, picked, strict=True)
            for delivery in self._take(sequence, choice, now)
        ]

    def _take(self, sequence: Sequence, choice: Picked, now: int) -> list[Delivery]:
        """Append a token, see whether the sequence ends with it, and say what the caller is told."""
        request = sequence.request
        sequence.first_token_ns = sequence.first_token_ns or now
        sequence.last_token_ns = now
        if choice.token == request.end_id:
            if request.wants.generation_logits:
                sequence.generation_logits.pop()
            self._finish(sequence, FinishReason.END_ID)
        else:
            sequence.tokens.append(choice.token)
            if sequence.counts is not None:
                sequence.counts[choice.token] += 1
            if choice.log_prob is not None:
                sequence.log_probs.append(choice.log_prob)
            if request.stop_words and ends_with_word(sequence.tokens, request.stop_words):
                self._finish(sequence, FinishReason.STOP_WORDS)
            elif sequence.produced >= sequence.max_new_tokens:
                self._finish(sequence, FinishReason.LENGTH)
        if sequence.finish_reason is None and not request.streaming:
            return []
        final = sequence.job.finished
        delivery = Delivery(sequence.job.caller, request, self._output(sequence), None, final)
        if final:
            self._end(sequence.job)
        return [delivery]

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a sequence: its room and its use of the adapter are given back at once."""
        sequence.finish_reason = reason
        if sequence.extent is not None and sequence.prompt_digests and not sequence.in_prefill:
            written = sequence.tokens[: sequence.written]
            self._pool.publish(sequence.extent, self._digests(sequence.request, written))
        self._scheduler.remove(sequence)
        if sequence.adapter is not None:
            self._loras.release(sequence.adapter.task_id)

    def _end(self, job: Job) -> None:
        with self._inbox.ready:
            self._active.pop(job.number, None)

    def _fail(self, jobs: Iterable[Job], error: Exception) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for job in jobs:
            for sequence in job.sequences:
                if sequence.finish_reason is None:
                    sequence.prompt_digests = []  # what the failed step wrote is not to be trusted
                    self._finish(sequence, FinishReason.CANCELLED)
            deliveries.append(
                Delivery(job.caller, job.request, None, as_forward_text(job.number, error), True)
            )
            self._end(job)
        return deliveries

    def _fail_everything(self, reason: str) -> None:
        with self._inbox.ready:
            queued = list(self._inbox.jobs)
            self._inbox.jobs.clear()
        deliveries = self._fail(list(self._active.values()), RuntimeError(reason))
        deliveries += [
            Delivery(job.caller, job.request, None, as_executor_text(job.number, RequestError(reason)), True)
            for job in queued
        ]
        self._deliver(deliveries)

    def _output(self, sequence: Sequence) -> SequenceOutput:
        """What the caller is told now: the new tokens when streaming, else all of them."""
        request, wants = sequence.request, sequence.request.wants
        echo = not request.streaming and not request.exclude_input_in_output
        start = sequence.prompt_length + sequence.sent if request.streaming else sequence.prompt_length
        if echo:
            start = 0
        logits = sequence.generation_logits[sequence.sent :] if request.streaming else sequence.generation_logits
        vocab_size = self._manifest.vocab_size
        generation = torch.stack(logits) if logits else torch.empty(0, vocab_size)
        output = SequenceOutput(
            sequence_index=sequence.index,
            token_ids=sequence.tokens[start:],
            finish_reason=sequence.finish_reason,
            num_input_tokens=sequence.prompt_length,
            cum_log_prob=sum(sequence.log_probs) if wants.log_probs else None,
            log_probs=list(sequence.log_probs) if wants.log_probs else None,
            context_logits=torch.cat(sequence.context_logits) if wants.context_logits else None,
            generation_logits=generation if wants.generation_logits else None,
            perf=self._perf(sequence) if wants.perf_metrics else None,
        )
        sequence.sent = sequence.produced
        return output

    def _perf(self, sequence: Sequence) -> PerfMetrics:
        total = self._scheduler.blocks_needed(sequence)
        return PerfMetrics(
            alloc_new_blocks=total - sequence.reused_blocks,
            reused_blocks=sequence.reused_blocks,
            alloc_total_blocks=total,
            arrival_ns=sequence.job.arrival_ns,
            first_scheduled_ns=sequence.first_scheduled_ns,
            first_token_ns=sequence.first_token_ns,
            last_token_ns=sequence.last_token_ns,
        )
