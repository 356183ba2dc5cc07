"""
Engines' words as recorded in the contract, each to the failure it means; all of them travel under one code.
"""

import pytest

from gateway.backends.triton_errors import engine_error
from gateway.domain.errors import (
    AdapterCacheFull,
    AdapterNotLoaded,
    EngineFailed,
    EngineQueueFull,
    EngineRefused,
    TargetUnavailable,
)

WRAPPED = "Executor failed process requestId 42 due to the following error: "
FETCHING = "Encountered an error when fetching new request: "

GOLDEN = [
    ("LoRA task 77 not found in cache. Please send LoRA weights with request", AdapterNotLoaded),
    ("PEFT Cache is full. Could not store taskId=77", AdapterCacheFull),
    ("Cache is full. There are no done tasks to evict", AdapterCacheFull),
    ("Error storing task=77 in PEFT cache -- Cache is full. There are no done tasks to evict", AdapterCacheFull),
    ("Error storing task=77 in PEFT cache -- [TensorRT-LLM][ERROR] Assertion failed", AdapterCacheFull),
    ("Request for LoRA inference must have both lora_weights and lora_keys", EngineRefused),
    ("lora_task_id must be set for LoRA inference", EngineRefused),
    ("Expected lora weights to be the same data type as base model", EngineRefused),
    ("lora module attn_q not enabled for this model", EngineRefused),
    ("lora_weights has to few values for attn_q", EngineRefused),
    ("Invalid low_rank (128). low_rank must be smaller than mMaxLowRank (64)", EngineRefused),
    ("Expected layerId to be in the range [0, numModelLayers)", EngineRefused),
    ("Expected dim1 lora_weights and lora_keys to have the same size", EngineRefused),
    ("Maximum queue size of 128 has been reached, please try again later", EngineQueueFull),
    ("Exceeds maximum queue size", EngineQueueFull),
    ("Prompt length (900) exceeds maximum input length (448). Set log level to info", EngineRefused),
    ("Incorrect sampling config", EngineRefused),
    ("num_return_sequences (4) exceeds the engine's maximum batch size (2)", EngineRefused),
    ("EndId (70000) is not within acceptable range [-1, 49152).", EngineRefused),
    ("Sparse list must not have odd length", EngineRefused),
    ("Invalid size for tensor temperature", EngineRefused),
    ("Input token extra ids must be provided when enabling kv cache reuse with prompt table", EngineRefused),
    ("GRPC server is shutting down and has stopped accepting new requests.", TargetUnavailable),
    ("Request for unknown model: 'tensorrt_llm' is not found", TargetUnavailable),
    ("Request for unknown model: 'tensorrt_llm' has no available versions", TargetUnavailable),
    ("model tensorrt_llm is not ready", TargetUnavailable),
    ("Error encountered while populating response: bad tensor", EngineFailed),
    ("mNextBlocks.empty() assertion failed", EngineFailed),
    ("something nobody has seen", EngineFailed),
    ("", EngineFailed),
]


@pytest.mark.parametrize(("text", "failure"), GOLDEN, ids=[text[:60] or "nothing" for text, _ in GOLDEN])
@pytest.mark.parametrize("around", ["", WRAPPED, FETCHING], ids=["bare", "wrapped", "while fetching"])
def test_what_a_text_means(text, failure, around):
    error = engine_error(around + text)
    assert type(error) is failure
    assert error.message == around + text


@pytest.mark.parametrize(
    "inner",
    [
        "Prompt vocab size (900) is too large. Max prompt vocab size is computed from the table and the batch",
        "Request embedding table data type doesn't match model weight data type.",
        "Caught exception during copyTask ensure batch -- Couldn't claim pages during copyTask -- lora_weights",
    ],
)
@pytest.mark.parametrize("function", ["forwardAsync", "forwardSync"])
def test_a_failed_forward_pass_is_no_requests_fault(inner, function):
    # It fails all that are active: the innocent used to be refused with a 400.
    error = engine_error(f"{WRAPPED}Encountered an error in {function} function: {inner}")
    assert type(error) is EngineFailed
    assert error.elsewhere


def test_the_case_of_letters_does_not_matter():
    assert isinstance(engine_error("please SEND lora WEIGHTS with REQUEST"), AdapterNotLoaded)
