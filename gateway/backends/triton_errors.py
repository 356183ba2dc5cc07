"""
What an engine's error text means. The C++ backend gives every failure the same code, so its words are all there is.

Decides which of our failures a text is. An unknown text counts as the engine's own failure: nothing is assumed of it.

Source: TensorRT-LLM 1.2.1, cpp/tensorrt_llm: peftCacheManager, loraUtils, llmRequest, executorImpl,
promptTuningBuffers.
"""

from gateway.domain.errors import (
    AdapterCacheFull,
    AdapterNotLoaded,
    BackendFailed,
    EngineFailed,
    EngineQueueFull,
    EngineRefused,
    TargetUnavailable,
)

# The first fragment that is there counts.
_TEXTS: tuple[tuple[str, type[BackendFailed]], ...] = (
    # A failed forward pass fails every active request, with the words of whatever one of them did wrong.
    ("Encountered an error in forward", EngineFailed),
    ("Please send LoRA weights with request", AdapterNotLoaded),
    ("PEFT Cache is full", AdapterCacheFull),
    ("There are no done tasks to evict", AdapterCacheFull),
    ("in PEFT cache --", AdapterCacheFull),
    ("Maximum queue size of", EngineQueueFull),
    ("Exceeds maximum queue size", EngineQueueFull),
    ("exceeds maximum input length", EngineRefused),
    ("Incorrect sampling config", EngineRefused),
    ("exceeds the engine's maximum batch size", EngineRefused),
    ("lora_weights", EngineRefused),
    ("lora weights to be the same data type", EngineRefused),
    ("lora_task_id must be set", EngineRefused),
    ("Expected layerId", EngineRefused),
    ("lora module", EngineRefused),
    ("low_rank", EngineRefused),
    ("prompt vocab size", EngineRefused),
    ("embedding table", EngineRefused),
    ("extra ids must be provided", EngineRefused),
    ("is not within acceptable range", EngineRefused),
    ("Sparse list", EngineRefused),
    ("Invalid size for tensor", EngineRefused),
    ("stopped accepting new requests", TargetUnavailable),
    ("is not ready", TargetUnavailable),
    ("Request for unknown model", TargetUnavailable),
)


def engine_error(text: str) -> BackendFailed:
    """The failure that an engine's words name."""
    lowered = text.lower()
    for fragment, failure in _TEXTS:
        if fragment.lower() in lowered:
            return failure(text)
    return EngineFailed(text)
