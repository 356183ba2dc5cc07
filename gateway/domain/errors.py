"""
Every failure we can name. Errors say whose fault it is; only transport/problems.py knows HTTP numbers.

    TailorError
    ├── CallerError            the request is wrong; sending it again changes nothing
    │   ├── InvalidRequest     a field breaks a rule
    │   ├── ContextLengthExceeded
    │   ├── InvalidKey
    │   ├── ModelNotFound
    │   ├── RequestTooLarge
    │   ├── BodyTooLate
    │   └── UnsupportedMedia
    ├── Overloaded             a limit of ours is reached; later it may pass
    └── BackendFailed          a target did not answer
        ├── TargetUnavailable  cannot be reached, or is gone
        ├── AdapterNotLoaded   the engine has forgotten the adapter
        ├── AdapterCacheFull   the engine has no place for it now
        ├── EngineQueueFull
        ├── EngineRefused      it refuses this request, and any other engine would
        ├── EngineFailed       it failed in its own way
        ├── AnswerIncomplete   it ended without saying that it was done
        └── DeadlineExceeded   it took too long
"""


class TailorError(Exception):
    """A failure with a sentence for whoever can do something about it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CallerError(TailorError):
    """The caller's mistake."""

    param: str | None = None
    code: str = "invalid_request"


class InvalidRequest(CallerError):
    """A field of the request breaks a rule; `param` names the field."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ContextLengthExceeded(CallerError):
    """Prompt and answer do not fit; the sentence has the numbers."""

    code = "context_length_exceeded"

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class InvalidKey(CallerError):
    """No key, or none that is known. One sentence for all causes, so that nothing can be probed."""

    code = "invalid_api_key"


class ModelNotFound(CallerError):
    """No such model for this caller: unknown, or somebody else's. The two are never told apart."""

    code = "model_not_found"
    param = "model"


class RequestTooLarge(CallerError):
    """The body is over the limit."""

    code = "request_too_large"


class BodyTooLate(CallerError):
    """The body did not arrive in time; the caller may send it again."""

    code = "request_timeout"


class UnsupportedMedia(CallerError):
    """The body is in a form that is not read: compressed, or not JSON by its own word."""

    code = "unsupported_media_type"


class Overloaded(TailorError):
    """A bound of this gateway is reached. `retry_after_s` says when it is worth trying again."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BackendFailed(TailorError):
    """A target did not answer. `elsewhere`: whether another target might."""

    elsewhere = True


class TargetUnavailable(BackendFailed):
    """The target cannot be reached, or went away."""


class AdapterNotLoaded(BackendFailed):
    """The engine does not hold the adapter's weights (any more)."""


class AdapterCacheFull(BackendFailed):
    """Every place in the engine's adapter cache is in use."""


class EngineQueueFull(BackendFailed):
    """The engine's own queue is full."""


class EngineRefused(BackendFailed):
    """The engine refuses this request; any other would too."""

    elsewhere = False


class EngineFailed(BackendFailed):
    """The engine failed in its own way."""


class AnswerIncomplete(BackendFailed):
    """The answer stopped without an end."""


class DeadlineExceeded(BackendFailed):
    """The target took too long."""
