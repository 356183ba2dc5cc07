"""
The wire's shapes of what callers send, and their way into the domain.

Decides which fields exist, what each may be, and the sentence for one that may not. A field that OpenAI knows and this
gateway cannot honour yet is declared as null only: it is refused by name, never ignored.
"""

import re
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from gateway.domain.errors import InvalidRequest
from gateway.domain.request import Chat, GenerationRequest, Message, SamplingParams, Text, TokenIds
from gateway.domain.tenant import Tenant

Temperature = Annotated[float, Meta(ge=0, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Stop = Annotated[str, Meta(min_length=1, max_length=256)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]

# Where a temperature or a share of the mass this small leaves nothing but the likeliest token.
_SMALLEST = 1e-5
# A caller's own words come back in a refusal and stand in a log line: no more of them than help to find the place.
_MOST_QUOTED = 128


class TextPart(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    text: str


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Meta(min_length=1)]
    # What the official client sends back when an answer is appended to the conversation as it came.
    refusal: None = None
    annotations: Annotated[list[str], Meta(max_length=0)] | None = None
    name: None = None
    audio: None = None
    tool_calls: None = None
    function_call: None = None


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class TextFormat(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    pass


class _Sampling(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What both operations share."""

    model: Annotated[str, Meta(min_length=1)]
    temperature: Temperature | None = None
    top_p: Probability | None = None
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    max_tokens: Count | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    user: str | None = None
    # Extensions that users of self-hosted servers know.
    # No engine of TensorRT-LLM draws from more candidates (its kernels' TOP_K_MAX); 0 means all of them.
    top_k: Annotated[int, Meta(ge=0, le=1024)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None

    def sampling(self) -> SamplingParams:
        temperature = 1.0 if self.temperature is None else self.temperature
        top_p = 1.0 if self.top_p is None else self.top_p
        # An engine divides by one in single precision and takes the other's 0 for "not set".
        greedy = temperature < _SMALLEST or top_p < _SMALLEST
        return SamplingParams(
            temperature=0.0 if greedy else temperature,
            top_p=1.0 if top_p < _SMALLEST else top_p,
            top_k=self.top_k or 0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            min_tokens=self.min_tokens or 0,
            seed=self.seed,
            logit_bias=_bias(self.logit_bias),
        )

    def stops(self) -> tuple[str, ...]:
        match self.stop:
            case None:
                return ()
            case str(text):
                return (text,)
            case texts:
                return tuple(texts)

    def include_usage(self) -> bool:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options may be sent only with `stream: true`", "stream_options")
        return self.stream_options is not None and self.stream_options.include_usage


class ChatBody(_Sampling, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/chat/completions. Source: OpenAI API reference."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=4096)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Literal[0] | None = None
    response_format: TextFormat | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: Annotated[list[Literal["text"]], Meta(min_length=1, max_length=1)] | None = None
    tools: None = None
    tool_choice: Literal["none"] | None = None
    parallel_tool_calls: None = None
    functions: None = None
    function_call: None = None
    metadata: None = None
    audio: None = None
    prediction: None = None
    reasoning_effort: None = None
    verbosity: None = None
    web_search_options: None = None
    prompt_cache_key: None = None
    prompt_cache_retention: None = None
    safety_identifier: None = None

    def request(self, tenant: Tenant) -> GenerationRequest:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise InvalidRequest("set max_completion_tokens or max_tokens, not both", "max_completion_tokens")
        param = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        return GenerationRequest(
            tenant=tenant,
            model=self.model,
            prompt=Chat(tuple(_message(message) for message in self.messages)),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            max_tokens_param=param,
            n=self.n or 1,
            stop=self.stops(),
            logprobs=bool(self.logprobs),
            sampling=self.sampling(),
        )


class CompletionBody(_Sampling, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/completions. Source: OpenAI API reference."""

    prompt: str | list[str | TokenId | list[TokenId]]
    logprobs: Literal[0] | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None

    def request(self, tenant: Tenant) -> GenerationRequest:
        return GenerationRequest(
            tenant=tenant,
            model=self.model,
            prompt=_prompt(self.prompt),
            # OpenAI's own default for this operation.
            max_tokens=self.max_tokens or 16,
            n=self.n or 1,
            stop=self.stops(),
            logprobs=self.logprobs is not None,
            sampling=self.sampling(),
        )


_CHAT = msgspec.json.Decoder(ChatBody)
_COMPLETION = msgspec.json.Decoder(CompletionBody)


def read_chat(body: bytes) -> ChatBody:
    """
    Raises:
        InvalidRequest: names the field and the rule.
    """
    return _read(_CHAT, body)


def read_completion(body: bytes) -> CompletionBody:
    """
    Raises:
        InvalidRequest: names the field and the rule.
    """
    return _read(_COMPLETION, body)


Body = TypeVar("Body")


def _read(decoder: msgspec.json.Decoder[Body], body: bytes) -> Body:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}", code="invalid_json") from None


_AT = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(.*)`")
_ONLY_NULL = re.compile(r"^Expected `null`, got ")


def _invalid(text: str) -> InvalidRequest:
    """The decoder's sentence as ours: its path becomes `param`."""
    at = _AT.search(text)
    path = _quoted(at[1]) if at else ""
    rule = text[: at.start()] if at else text
    if unknown := _UNKNOWN.match(rule):
        param = _quoted(f"{path}.{unknown[1]}" if path else unknown[1])
        return InvalidRequest(f"`{param}` is not a field of this operation", param, "unknown_parameter")
    if missing := _MISSING.match(rule):
        param = f"{path}.{missing[1]}" if path else missing[1]
        return InvalidRequest(f"`{param}` is required", param, "missing_required_parameter")
    if _ONLY_NULL.match(rule):
        return InvalidRequest(f"`{path}` is not supported by this server", path, "unsupported_parameter")
    return InvalidRequest(f"`{path or 'body'}`: {_quoted(rule[0].lower() + rule[1:])}", path or None)


def _quoted(text: str) -> str:
    return text if len(text) <= _MOST_QUOTED else text[:_MOST_QUOTED] + "…"


def _message(message: ChatMessage) -> Message:
    # `developer` is OpenAI's newer name for the same turn; open models were trained on `system`.
    role = "system" if message.role == "developer" else message.role
    match message.content:
        case str(text):
            return Message(role, text)
        case parts:
            return Message(role, "".join(part.text for part in parts))


def _prompt(prompt: str | list[str | int | list[int]]) -> Text | TokenIds:
    match prompt:
        case str(text) | [str(text)]:
            return Text(text)
        case [[*ids]]:
            return TokenIds(tuple(ids))
        case []:
            raise InvalidRequest("prompt is empty; it must have at least one token", "prompt")
    numbers = tuple(item for item in prompt if isinstance(item, int))
    if len(numbers) == len(prompt):
        return TokenIds(numbers)
    raise InvalidRequest("several prompts in one request are not supported yet; send one request for each", "prompt")


def _bias(bias: dict[str, float] | None) -> tuple[tuple[int, float], ...]:
    if not bias:
        return ()
    for key in bias:
        if not (key.isascii() and key.isdigit() and len(key) <= 9):
            raise InvalidRequest(f"logit_bias maps token ids to numbers; `{key[:32]}` is no token id", "logit_bias")
    return tuple((int(key), value) for key, value in bias.items())
