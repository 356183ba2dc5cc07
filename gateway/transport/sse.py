"""
Events as the bytes that callers read: server-sent events for streams, one JSON object otherwise.

The only file that knows `data:`. A stream's unchanging parts are rendered once; what a batch of events needs is joined
into one write.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from gateway.domain.event import Delta, Event, Finished, TokenLogprob, Usage
from gateway.domain.job import Job, Target

Operation = Literal["chat", "completion"]
DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": keep-alive\n\n"
STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]

_json = msgspec.json.encode


class Identity(msgspec.Struct, frozen=True):
    """What all objects of one response share."""

    id: str
    created: int
    model: str
    system_fingerprint: str


def route_label(job: Job, target: Target) -> str:
    """Who answers, as `x-tailor-route` says it: endpoint, adapter version and rung."""
    profile = job.profile
    version = profile.name if profile.tenant is None else f"{profile.tenant}/{profile.name}@{profile.version}"
    return f"endpoint={target.endpoint.name}; version={version}; rung={target.rung}"


def usage_object(usage: Usage, route: str) -> dict[str, object]:
    """
    OpenAI's usage. `prompt_tokens` are the caller's; the profile's virtual ones are reported apart and are in no sum.
    """
    prompt = usage.prompt_tokens - usage.virtual_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": prompt + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0, "virtual_tokens": usage.virtual_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        "tailor": {"route": route},
    }


class Renderer(Protocol):
    """One operation's objects."""

    def first(self, answers: int) -> bytes:
        """What opens a stream."""
        ...

    def events(self, events: Sequence[Event]) -> bytes:
        """A batch of events as one write."""
        ...

    def usage(self, usage: dict[str, object]) -> bytes:
        """The stream's last chunk, where it was asked for."""
        ...

    def whole(self, events: Sequence[Event], answers: int, usage: dict[str, object]) -> bytes:
        """All events as one object."""
        ...


def renderer(operation: Operation, identity: Identity, *, logprobs: bool, include_usage: bool) -> Renderer:
    kind = _Chat if operation == "chat" else _Completion
    return kind(identity, logprobs=logprobs, include_usage=include_usage)


class _Chunks:
    """The frame of a stream's chunks: `head`, the choice's index, its middle, `tail`."""

    chunk_object: str
    whole_object: str

    def __init__(self, identity: Identity, *, logprobs: bool, include_usage: bool) -> None:
        self._identity = identity
        self._logprobs = logprobs
        shared = b'"created":%d,"model":%b,"system_fingerprint":%b' % (
            identity.created,
            _json(identity.model),
            _json(identity.system_fingerprint),
        )
        self._open = b'data: {"id":%b,"object":"%b",%b,"choices":[' % (
            _json(identity.id),
            self.chunk_object.encode(),
            shared,
        )
        self._head = self._open + b'{"index":'
        self._tail = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"

    def usage(self, usage: dict[str, object]) -> bytes:
        return self._open + b'],"usage":' + _json(usage) + b"}\n\n"

    def _whole(self, choices: list[dict[str, object]], usage: dict[str, object]) -> bytes:
        identity = self._identity
        return _json(
            {
                "id": identity.id,
                "object": self.whole_object,
                "created": identity.created,
                "model": identity.model,
                "choices": choices,
                "usage": usage,
                "system_fingerprint": identity.system_fingerprint,
            }
        )


class _Chat(_Chunks):
    chunk_object = "chat.completion.chunk"
    whole_object = "chat.completion"

    def first(self, answers: int) -> bytes:
        delta = b',"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null'
        return b"".join([b"%b%d%b%b" % (self._head, index, delta, self._tail) for index in range(answers)])

    def events(self, events: Sequence[Event]) -> bytes:
        return b"".join([self._event(event) for event in events])

    def _event(self, event: Event) -> bytes:
        match event:
            case Delta(index, text, entries):
                logprobs = _json(_chat_logprobs(entries)) if self._logprobs else b"null"
                middle = b',"delta":{"content":%b},"logprobs":%b,"finish_reason":null' % (_json(text), logprobs)
            case Finished(index, reason):
                middle = b',"delta":{},"logprobs":null,"finish_reason":"%b"' % reason.value.encode()
        return b"%b%d%b%b" % (self._head, index, middle, self._tail)

    def whole(self, events: Sequence[Event], answers: int, usage: dict[str, object]) -> bytes:
        choices: list[dict[str, object]] = []
        for index in range(answers):
            text, entries, reason = _gathered(events, index)
            choices.append(
                {
                    "index": index,
                    "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
                    "logprobs": _chat_logprobs(entries) if self._logprobs else None,
                    "finish_reason": reason,
                }
            )
        return self._whole(choices, usage)


class _Completion(_Chunks):
    chunk_object = "text_completion"
    whole_object = "text_completion"

    def __init__(self, identity: Identity, *, logprobs: bool, include_usage: bool) -> None:
        super().__init__(identity, logprobs=logprobs, include_usage=include_usage)
        self._offsets: dict[int, int] = {}

    def first(self, answers: int) -> bytes:
        return b""

    def events(self, events: Sequence[Event]) -> bytes:
        return b"".join([self._event(event) for event in events])

    def _event(self, event: Event) -> bytes:
        match event:
            case Delta(index, text, entries):
                logprobs = _json(self._legacy_logprobs(index, entries)) if self._logprobs else b"null"
                middle = b',"text":%b,"logprobs":%b,"finish_reason":null' % (_json(text), logprobs)
            case Finished(index, reason):
                middle = b',"text":"","logprobs":null,"finish_reason":"%b"' % reason.value.encode()
        return b"%b%d%b%b" % (self._head, index, middle, self._tail)

    def whole(self, events: Sequence[Event], answers: int, usage: dict[str, object]) -> bytes:
        choices: list[dict[str, object]] = []
        for index in range(answers):
            text, entries, reason = _gathered(events, index)
            logprobs = self._legacy_logprobs(index, entries) if self._logprobs else None
            choices.append({"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason})
        return self._whole(choices, usage)

    def _legacy_logprobs(self, index: int, entries: Sequence[TokenLogprob]) -> dict[str, object]:
        offset, offsets = self._offsets.get(index, 0), []
        for entry in entries:
            offsets.append(offset)
            offset += len(entry.text)
        self._offsets[index] = offset
        return {
            "tokens": [entry.text for entry in entries],
            "token_logprobs": [entry.logprob for entry in entries],
            "top_logprobs": None,
            "text_offset": offsets,
        }


def _chat_logprobs(entries: Sequence[TokenLogprob]) -> dict[str, object]:
    content = [
        {"token": entry.text, "logprob": entry.logprob, "bytes": list(entry.bytes), "top_logprobs": []}
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def _gathered(events: Sequence[Event], index: int) -> tuple[str, list[TokenLogprob], str | None]:
    own = [event for event in events if event.index == index]
    deltas = [event for event in own if isinstance(event, Delta)]
    reason = next((event.reason.value for event in own if isinstance(event, Finished)), None)
    entries = [entry for delta in deltas for entry in delta.logprobs]
    return "".join(delta.text for delta in deltas), entries, reason
