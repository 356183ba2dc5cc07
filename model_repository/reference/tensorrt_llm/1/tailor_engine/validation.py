"""
Whether a request fits this engine.

Decides what is refused when the executor fetches a request, and with which text. A bad tensor fails its own request
here and never a forward step, where TensorRT-LLM would fail every active request. Does not know queues or caches.
"""

from collections.abc import Sequence

import torch

from .errors import RequestError
from .manifest import DTYPES, EngineOptions, Manifest
from .request import EngineRequest, PromptTable
from .sampling import MAX_TOP_K


def check_request(request: EngineRequest, manifest: Manifest, options: EngineOptions) -> int:
    """
    Check a request against the engine.

    Returns:
        how many tokens it may produce: what it asked for, reduced to what max_total_tokens leaves.

    Raises:
        RequestError
    """
    vocab_size, prompt_length = manifest.vocab_size, len(request.input_ids)
    if not -1 <= request.end_id < vocab_size:
        raise RequestError(f"EndId ({request.end_id}) is not within acceptable range [-1, {vocab_size}).")
    if prompt_length == 0:
        raise RequestError("Prompt length (0) is too short: send at least one token")
    if prompt_length > manifest.max_input_tokens:
        raise RequestError(
            f"Prompt length ({prompt_length}) exceeds maximum input length ({manifest.max_input_tokens}). "
            "Set log level to info and check TRTGptModel logs for how maximum input length is set"
        )
    if prompt_length >= manifest.max_total_tokens:
        raise RequestError(
            f"Prompt length ({prompt_length}) leaves no room for new tokens in the maximum sequence length "
            f"({manifest.max_total_tokens})"
        )
    new_tokens = min(request.max_new_tokens, manifest.max_total_tokens - prompt_length)
    _check_sampling(request, manifest)
    _check_table(request.prompt_table, manifest, prompt_length)
    rows = 0 if request.prompt_table is None else request.prompt_table.rows.shape[0]
    _check_token_ids(request.input_ids, vocab_size, rows)
    _check_logits(request, manifest, options, new_tokens)
    if request.lora is not None and manifest.lora is None:
        raise RequestError("LoRA is not enabled for this engine: build it with LoRA modules, or send no lora_task_id")
    if request.guided and not manifest.guided_decoding:
        raise RequestError("Request is specified with GuidedDecodingParams, but GuidedDecoder is not setup")
    return new_tokens


def _check_sampling(request: EngineRequest, manifest: Manifest) -> None:
    sampling = request.sampling
    if request.beam_width != 1:
        raise RequestError(
            f"Requested beam width ({request.beam_width}) does not fit the engine's maximum beam width (1)"
        )
    sane = (
        0 <= sampling.top_k <= MAX_TOP_K
        and 0.0 <= sampling.top_p <= 1.0
        and sampling.temperature >= 0.0
        and sampling.repetition_penalty > 0.0
        and sampling.min_tokens >= 0
        and request.num_return_sequences >= 1
    )
    if not sane:  # also for NaN, which compares false
        raise RequestError("Incorrect sampling config")
    if request.num_return_sequences > manifest.max_batch_size:
        raise RequestError(
            f"num_return_sequences ({request.num_return_sequences}) exceeds the engine's maximum batch size "
            f"({manifest.max_batch_size})"
        )
    bias = request.embedding_bias
    if bias is not None and tuple(bias.shape) != (manifest.vocab_size,):
        raise RequestError(
            f"embedding_bias has shape {list(bias.shape)}; the engine takes [{manifest.vocab_size}], one per id"
        )
    for name, words in (("stop", request.stop_words), ("bad", request.bad_words)):
        if any(not 0 <= token < manifest.vocab_size for word in words for token in word):
            raise RequestError(f"{name}_words_list holds an id outside the vocabulary [0, {manifest.vocab_size})")


def _check_table(table: PromptTable | None, manifest: Manifest, prompt_length: int) -> None:
    if table is None:
        return
    ability = manifest.prompt_table
    max_rows = 0 if ability is None else ability.max_rows
    rows = table.rows
    if rows.dim() != 2 or rows.shape[1] != manifest.hidden_size:
        raise RequestError(
            f"prompt_embedding_table has shape {list(rows.shape)}; the engine takes [rows, {manifest.hidden_size}]"
        )
    if rows.shape[0] > max_rows or ability is None:
        raise RequestError(
            f"Prompt vocab size{rows.shape[0]} is larger than max prompt vocab size of {max_rows}. "
            "Max prompt vocab size is computed from max_prompt_embedding_table_size / max_batch_size. "
        )
    if rows.dtype != DTYPES[ability.dtype]:
        raise RequestError("Request embedding table data type doesn't match model weight data type.")
    if not bool(torch.isfinite(rows).all()):
        raise RequestError("prompt_embedding_table holds a value that is not finite")
    if manifest.kv_reuse.enabled and (table.extra_ids is None or len(table.extra_ids) != prompt_length):
        raise RequestError("Input token extra ids must be provided when enabling kv cache reuse with prompt table")


def _check_token_ids(ids: Sequence[int], vocab_size: int, rows: int) -> None:
    low, high = min(ids), max(ids)
    if low < 0 or high >= vocab_size + rows:
        wrong = low if low < 0 else high
        table = f" plus {rows} rows of the prompt table" if rows else " and there is no prompt table"
        raise RequestError(f"Token id ({wrong}) is out of range: the vocabulary has {vocab_size} ids{table}")


def _check_logits(request: EngineRequest, manifest: Manifest, options: EngineOptions, new_tokens: int) -> None:
    wants = request.wants
    if wants.context_logits and not manifest.logits.context:
        raise RequestError("Return context logit need to build engine with gather_context_logits")
    if wants.generation_logits and not manifest.logits.generation:
        raise RequestError("To return generation logits, gather_generation_logits must be enabled")
    rows = max(
        len(request.input_ids) if wants.context_logits else 0,
        (1 if request.streaming else new_tokens) if wants.generation_logits else 0,
    )
    size = rows * manifest.vocab_size * 4
    if size > options.max_logits_bytes:
        raise RequestError(
            f"the logits asked for take {size} bytes in one response; this engine sends at most "
            f"{options.max_logits_bytes} (parameter max_logits_bytes)"
        )
