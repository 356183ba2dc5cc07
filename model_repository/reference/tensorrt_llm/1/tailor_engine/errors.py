"""
What can go wrong with one request, in the words that TensorRT-LLM uses for it.

Decides the texts, because callers have nothing else to go by: every failure reaches them as INTERNAL. Does not know how
a failure travels (model.py) nor who raises it. Texts are those of contract sections 2.3, 4.1, 4.5, 5 and 6.5.
"""


class EngineLoadError(Exception):
    """The engine cannot start; the text is one sentence that says what to mend."""


class EnqueueError(Exception):
    """Refused while the tensors were read or queued; the text travels as it is."""


class RequestError(Exception):
    """Refused by the executor when it fetched the request; travels behind a prefix that says so."""


class LoraExpectedError(RequestError):
    """A LoRA failure that callers are meant to handle (a miss, a full cache); travels without the fetch prefix."""


def lora_miss(task_id: int) -> LoraExpectedError:
    return LoraExpectedError(f"LoRA task {task_id} not found in cache. Please send LoRA weights with request")


def lora_cache_full(task_id: int) -> LoraExpectedError:
    return LoraExpectedError(
        f"PEFT Cache is full. Could not store taskId={task_id}: Cache is full. There are no done tasks to evict"
    )


def queue_full(limit: int) -> EnqueueError:
    return EnqueueError(f"Maximum queue size of {limit} has been reached, please try again later")


def as_executor_text(request_number: int, error: Exception) -> str:
    """
    The text of an executor failure as the Triton backend wraps it.

    request_number: the executor's own number of the request, not the caller's id.
    """
    inner = str(error)
    if not isinstance(error, LoraExpectedError):
        inner = f"Encountered an error when fetching new request: {inner}"
    return f"Executor failed process requestId {request_number} due to the following error: {inner}"


def as_forward_text(request_number: int, error: Exception) -> str:
    """The text that every active request gets when the forward step itself failed."""
    return (
        f"Executor failed process requestId {request_number} due to the following error: "
        f"Encountered an error in forwardAsync function: {error}"
    )
