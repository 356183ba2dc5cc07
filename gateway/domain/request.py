"""
What was asked, already valid.

Decides the shape of a request between HTTP and the engines. Does not know JSON, nor any engine's tensors.
"""

from dataclasses import dataclass, field

from gateway.domain.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: a role that the template knows, and its text."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, for the model's chat template to write out."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A text to go on with, as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A prompt that the caller has tokenised."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """
    How the next token is chosen. Names and ranges as in the OpenAI API; 0 for `top_k` means off.

    `temperature` 0 is greedy. `logit_bias` maps token id to an addend in logits. `seed` None means a random one.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """
    One call for text.

    `max_tokens` None means what fits; `max_tokens_param` is what the caller calls it. `stop` holds strings that end the
    answer and are not part of it. `n` answers are drawn.
    """

    tenant: Tenant
    model: str
    prompt: Chat | Text | TokenIds
    max_tokens: int | None = None
    max_tokens_param: str = "max_tokens"
    n: int = 1
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    sampling: SamplingParams = field(default_factory=SamplingParams)
