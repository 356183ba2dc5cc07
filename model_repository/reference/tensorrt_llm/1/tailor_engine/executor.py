"""
The engine's loop: fetch, admit, run one step, pick tokens, answer.

Decides the order of these and what happens to a request that fails, is cancelled or is stopped. Does not know Triton:
answers go to a function, callers are asked through a one-method port. One thread runs the loop; submit, stop and close
may be called from any.
"""

import logging
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq

import torch

from .adapter import Adapter, build_adapter, check_lora_form
from .answers import Delivery, content, ending, failure
from .batch import pack
from .checkpoint import ModelConfig
from .decoder import Decoder
from .errors import RequestError, as_executor_text, as_forward_text
from .inbox import Inbox
from .kv_blocks import BlockPool, Digest, prefix_digests
from .kv_cache import KvCache
from .lora_cache import LoraCache
from .manifest import EngineOptions, Manifest
from .request import EngineRequest, FinishReason, LoraInput
from .sampling import Picked, count_tokens, pick
from .scheduler import Scheduler, SchedulerLimits, Share
from .sequence import Caller, Job, Sequence
from .stats import Stats
from .validation import check_request
from .words import ends_with_word

log = logging.getLogger(__name__)


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
        deliver     is told everything that one step produced, at once, from the engine's thread
        on_stats    is told the load after every step
        fresh_seed  gives 64 random bits to a request that brings no seed
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
        self._pool = BlockPool(blocks)
        self._cache = KvCache(
            config.num_layers, config.num_kv_heads, config.head_size, blocks, self._block, manifest.torch_dtype
        )
        limits = SchedulerLimits(
            manifest.max_batch_size, self._block, options.prefill_chunk_tokens, options.max_num_tokens
        )
        self._scheduler = Scheduler(limits, self._pool)
        self._loras = LoraCache(0 if manifest.lora is None else manifest.lora.cache_bytes)
        self._inbox = Inbox(options.max_queue_size, options.max_queue_bytes, options.cancellation_check_period_ms)
        self._iteration = 0

    # Any thread.

    def submit(self, request: EngineRequest, caller: Caller) -> int:
        """
        Queue a request.

        Returns:
            the executor's number of it, for `stop`.

        Raises:
            EnqueueError: the queue is full.
        """
        return self._inbox.submit(request, caller)

    def stop(self, number: int) -> None:
        """End a request early; its caller gets what it produced so far."""
        self._inbox.stop(number)

    def close(self) -> None:
        """End the loop after the current step; what is still open is answered with an error."""
        self._inbox.close()

    # The engine's thread.

    def run(self) -> None:
        """Step until closed; sleep while there is nothing to do."""
        self._on_stats(self._stats(()))
        while self._inbox.wait():
            try:
                self.step()
            except Exception as error:  # the thread must live: a dead one would leave every caller waiting
                log.exception("a step failed outside the forward pass")
                self._deliver(self._fail(self._inbox.fetched, error))
        reason = RuntimeError("the engine is shutting down")
        deliveries = self._fail(self._inbox.fetched, reason)
        deliveries += [failure(job, as_executor_text(job.number, reason)) for job in self._inbox.drain()]
        self._deliver(deliveries)

    @torch.inference_mode()
    def step(self) -> None:
        """One iteration. A failure of the forward pass fails the requests that were in it, and no others."""
        deliveries = self._drop_gone()
        deliveries += self._fetch()
        self._admit()
        shares = self._scheduler.shares()
        if shares:
            self._iteration += 1
            try:
                deliveries += self._advance(shares)
            except Exception as error:
                log.exception("the forward step failed")
                deliveries += self._fail(
                    {share.sequence.job.number: share.sequence.job for share in shares}.values(), error
                )
        if deliveries:
            self._deliver(deliveries)
        self._on_stats(self._stats([share for share in shares if share.sequence.finish_reason is None]))

    def _drop_gone(self) -> list[Delivery]:
        """End what was stopped, with what it has, and what nobody waits for any more, without a word."""
        queued, fetched = self._inbox.gone()
        deliveries = [ending(job) for job in queued]
        for job in fetched:
            unfinished = [sequence for sequence in job.sequences if sequence.finish_reason is None]
            for sequence in unfinished:
                self._finish(sequence, FinishReason.CANCELLED)
            if job.stopped:
                deliveries += [self._content(sequence) for sequence in unfinished[:-1]]
                deliveries.append(self._content(unfinished[-1], final=True))
            else:
                deliveries.append(ending(job))
            self._inbox.end(job)
        return deliveries

    def _fetch(self) -> list[Delivery]:
        """Take requests in while there is a place in the batch for all their sequences."""
        failures: list[Delivery] = []
        while True:
            active = sum(len(job.sequences) for job in self._inbox.fetched)
            job = self._inbox.take(self._manifest.max_batch_size - active)
            if job is None:
                return failures
            try:
                self._start(job)
            except Exception as error:
                if not isinstance(error, RequestError):
                    log.exception("request %d could not be started", job.number)
                self._inbox.end(job)
                failures.append(failure(job, as_executor_text(job.number, error)))

    def _start(self, job: Job) -> None:
        request, sampling = job.request, job.request.sampling
        new_tokens = check_request(request, self._manifest, self._options)
        if new_tokens < request.max_new_tokens:
            log.warning(
                "Number of requested output tokens is changed to (%d) from (%d): request %d has a prompt of %d tokens, "
                "and the maximum sequence length is %d",
                new_tokens,
                request.max_new_tokens,
                job.number,
                len(request.input_ids),
                self._manifest.max_total_tokens,
            )
        digests = self._digests(request, request.input_ids)
        seed = self._fresh_seed() if sampling.seed is None else sampling.seed
        for index in range(request.num_return_sequences):
            sequence = Sequence(
                job=job,
                index=index,
                seed=seed + index,
                max_new_tokens=new_tokens,
                adapter=None if request.lora is None else self._take_adapter(request.lora),
                tokens=list(request.input_ids),
                prompt_length=len(request.input_ids),
                # Reused blocks have no logits, so a request that wants those of its prompt reads all of it.
                prompt_digests=[] if request.wants.context_logits else digests,
            )
            if sampling.penalised:
                sequence.counts = count_tokens(sequence, self._manifest.vocab_size)
            job.sequences.append(sequence)
            self._scheduler.add(sequence)

    def _take_adapter(self, lora: LoraInput) -> Adapter:
        """A resident id wins over weights that came with it, as in TensorRT-LLM: they are not even looked at."""
        check_lora_form(lora)
        ability = self._manifest.lora
        if lora.task_id is None or ability is None:
            raise RequestError("lora_task_id must be set for LoRA inference")
        if lora.weights is not None and lora.task_id not in self._loras:
            self._loras.store(build_adapter(lora, ability, self._config, self._manifest.torch_dtype))
        return self._loras.use(lora.task_id)

    def _digests(self, request: EngineRequest, tokens: Seq[int]) -> list[Digest]:
        """Names of the full blocks of a sequence, or none where they must not be shared."""
        if not self._manifest.kv_reuse.enabled:
            return []
        extra_ids = None if request.prompt_table is None else request.prompt_table.extra_ids
        if extra_ids is not None:
            pairs = zip(request.input_ids, extra_ids, strict=True)
            if any(token >= self._manifest.vocab_size and extra == 0 for token, extra in pairs):
                return []  # a virtual token without an extra id names no table: equal keys would not mean equal rows
        task_id = None if request.lora is None else request.lora.task_id
        return prefix_digests(tokens, extra_ids, task_id, self._block)

    def _admit(self) -> None:
        while admitted := self._scheduler.admit():
            for sequence, allocation in admitted:
                self._cache.prepare(allocation)
                sequence.first_scheduled_ns = time.monotonic_ns()

    def _advance(self, shares: Seq[Share]) -> list[Delivery]:
        """One forward pass, one token for every sequence whose last token was in it."""
        logits = self._decoder.forward(pack(shares, self._manifest.vocab_size, self._block), self._cache)
        rows: list[int] = []
        picking: list[Sequence] = []
        row = 0
        for share in shares:
            sequence, sampled = share.sequence, share.samples
            in_prompt = share.start < sequence.prompt_length
            if in_prompt and sequence.request.wants.context_logits:
                count = share.end - share.start
                sequence.context_logits.append(logits[row : row + count].clone())
            else:
                count = int(sampled)
            row += count
            sequence.written = share.end
            if sampled:
                rows.append(row - 1)
                picking.append(sequence)
                if in_prompt and sequence.extent is not None:
                    self._pool.publish(sequence.extent, sequence.prompt_digests)
        if not picking:
            return []
        chosen = logits if len(rows) == logits.shape[0] else logits[rows]
        for place, sequence in enumerate(picking):
            if sequence.request.wants.generation_logits:
                sequence.generation_logits.append(chosen[place].clone())
        picked = pick(chosen, picking, self._options.normalize_log_probs)
        now = time.monotonic_ns()
        taken = [self._take(sequence, choice, now) for sequence, choice in zip(picking, picked, strict=True)]
        return [delivery for delivery in taken if delivery is not None]

    def _take(self, sequence: Sequence, choice: Picked, now: int) -> Delivery | None:
        """Append a token, see whether the sequence ends with it, and say what the caller is told, if anything."""
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
            return None
        final = sequence.job.finished
        if final:
            self._inbox.end(sequence.job)
        return self._content(sequence, final=final)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a sequence: its room and its use of the adapter are given back at once."""
        sequence.finish_reason = reason
        if sequence.extent is not None and sequence.prompt_digests and not sequence.in_prefill:
            self._pool.publish(sequence.extent, self._digests(sequence.request, sequence.tokens[: sequence.written]))
        self._scheduler.remove(sequence)
        if sequence.adapter is not None:
            self._loras.release(sequence.adapter.task_id)

    def _fail(self, jobs: Iterable[Job], error: Exception) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for job in jobs:
            for sequence in job.sequences:
                if sequence.finish_reason is None:
                    sequence.prompt_digests = []  # what the failed step wrote is not to be trusted
                    self._finish(sequence, FinishReason.CANCELLED)
            deliveries.append(failure(job, as_forward_text(job.number, error)))
            self._inbox.end(job)
        return deliveries

    def _content(self, sequence: Sequence, *, final: bool = False) -> Delivery:
        return content(
            sequence,
            final=final,
            total_blocks=self._scheduler.blocks_needed(sequence),
            vocab_size=self._manifest.vocab_size,
        )

    def _stats(self, shares: Seq[Share]) -> Stats:
        reading = [share for share in shares if share.start < share.sequence.prompt_length]
        return Stats(
            active=sum(len(job.sequences) for job in self._inbox.fetched),
            max=self._manifest.max_batch_size,
            scheduled=len(shares),
            context=len(reading),
            queued=len(self._inbox),
            context_tokens=sum(share.end - share.start for share in reading),
            iteration=self._iteration,
            tokens_per_block=self._block,
            blocks=self._pool.stats(),
        )
