"""
One step's input: all shares packed into one row of tokens.

Decides the order and the indices. Does not know the model's weights nor how tokens are picked.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch

from .adapter import Adapter
from .scheduler import Share


@dataclass(frozen=True)
class Span:
    """
    One share's place: tokens [start, end) of the step.

    cache_start  its sequence's first token in the KV cache
    length       its sequence's tokens in the KV cache after this step
    """

    start: int
    end: int
    cache_start: int
    length: int


@dataclass(frozen=True, eq=False)
class AdapterSpan:
    """Tokens [start, end) of the step are adapted by `adapter`."""

    adapter: Adapter
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class TableRows:
    """Tokens at `places` take `rows` of a prompt table instead of an embedding. places [n], rows [n, hidden]."""

    places: torch.Tensor
    rows: torch.Tensor


@dataclass(frozen=True, eq=False)
class StepInput:
    """
    token_ids    [tokens]  virtual ones replaced by 0
    positions    [tokens]  within their sequence
    cache_slots  [tokens]  token index in the KV cache
    logit_rows   [rows]    tokens whose logits are wanted, in the order of the shares
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    cache_slots: torch.Tensor
    spans: tuple[Span, ...]
    adapters: tuple[AdapterSpan, ...]
    tables: tuple[TableRows, ...]
    logit_rows: torch.Tensor


def pack(shares: Seq[Share], vocab_size: int, tokens_per_block: int) -> StepInput:
    """Pack shares that are already ordered so that those of one adapter are neighbours."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    spans: list[Span] = []
    adapters: list[AdapterSpan] = []
    tables: list[TableRows] = []
    logit_rows: list[int] = []
    for share in shares:
        sequence, start = share.sequence, len(token_ids)
        if sequence.extent is None:
            raise RuntimeError("a sequence without room in the KV cache was scheduled")
        cache_start = sequence.extent.start * tokens_per_block
        ids = sequence.tokens[share.start : share.end]
        table = sequence.request.prompt_table
        if table is not None and share.start < sequence.prompt_length:
            virtual = [place for place, token in enumerate(ids) if token >= vocab_size]
            if virtual:
                rows = table.rows[[ids[place] - vocab_size for place in virtual]]
                tables.append(TableRows(torch.tensor(virtual) + start, rows))
                for place in virtual:
                    ids[place] = 0
        token_ids += ids
        positions += range(share.start, share.end)
        slots += range(cache_start + share.start, cache_start + share.end)
        end = len(token_ids)
        spans.append(Span(start, end, cache_start, share.end))
        if sequence.adapter is not None:
            if adapters and adapters[-1].adapter is sequence.adapter:
                adapters[-1] = AdapterSpan(sequence.adapter, adapters[-1].start, end)
            else:
                adapters.append(AdapterSpan(sequence.adapter, start, end))
        if sequence.request.wants.context_logits and share.start < sequence.prompt_length:
            logit_rows += range(start, end)
        elif share.samples:
            logit_rows.append(end - 1)
    return StepInput(
        torch.tensor(token_ids),
        torch.tensor(positions),
        torch.tensor(slots),
        tuple(spans),
        tuple(adapters),
        tuple(tables),
        torch.tensor(logit_rows, dtype=torch.int64),
    )
