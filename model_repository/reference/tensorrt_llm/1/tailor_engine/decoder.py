"""
The forward pass: one step of the Llama and Qwen families over a packed batch.

Decides the arithmetic. Does not know requests, sampling or scheduling. Prompts being read and sequences being decoded,
with and without adapters and prompt tables, go through the same matrices together; only attention and adapters look at
the parts. It follows transformers' own modelling code in its order of operations, so that logits agree to rounding.
"""

import torch
from torch.nn import functional

from .adapter import DENSE, DOWN, GATE_UP, QKV, apply_delta
from .batch import AdapterSpan, Span, StepInput
from .checkpoint import LayerWeights, ModelConfig, ModelWeights
from .kv_cache import KvCache
from .rotary import rotary_table


class Decoder:
    """Weights, rotary tables and the forward pass. Not thread-safe: it writes to the KV cache."""

    def __init__(self, config: ModelConfig, weights: ModelWeights, max_tokens: int) -> None:
        self._config = config
        self._weights = weights
        self._rotary = rotary_table(config.rotary, max_tokens, weights.embedding.dtype)
        self._scale = config.head_size**-0.5

    @torch.inference_mode()
    def forward(self, step: StepInput, cache: KvCache) -> torch.Tensor:
        """
        Run one step; keys and values of its tokens are written to the cache.

        Returns:
            logits [rows of step.logit_rows, vocabulary], float32
        """
        config, weights = self._config, self._weights
        hidden = functional.embedding(step.token_ids, weights.embedding)
        for table in step.tables:
            hidden[table.places] = table.rows
        cos = self._rotary.cos[step.positions]
        sin = self._rotary.sin[step.positions]
        shape, eps = (config.hidden_size,), config.norm_eps
        for index, layer in enumerate(weights.layers):
            normed = functional.rms_norm(hidden, shape, layer.input_norm, eps)
            qkv = layer.qkv(normed)
            _adapt(step.adapters, index, QKV, normed, qkv)
            mixed = self._attention(qkv, layer, step, cache.data[index], cos, sin)
            dense = layer.dense(mixed)
            _adapt(step.adapters, index, DENSE, mixed, dense)
            hidden = dense.add_(hidden)
            normed = functional.rms_norm(hidden, shape, layer.post_norm, eps)
            gate_up = layer.gate_up(normed)
            _adapt(step.adapters, index, GATE_UP, normed, gate_up)
            inner = functional.silu(gate_up[:, : config.intermediate_size])
            inner.mul_(gate_up[:, config.intermediate_size :])
            down = layer.down(inner)
            _adapt(step.adapters, index, DOWN, inner, down)
            hidden = down.add_(hidden)
        wanted = functional.rms_norm(hidden[step.logit_rows], shape, weights.norm, eps)
        return weights.head(wanted).float()

    def _attention(
        self,
        qkv: torch.Tensor,
        layer: LayerWeights,
        step: StepInput,
        cache: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        """
        Rotate, write keys and values, and attend.

        qkv    [tokens, q + 2 kv]; overwritten
        cache  [2 kv heads, all cached tokens, head size] of this layer
        """
        config = self._config
        heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_size
        parts = qkv.view(-1, heads + 2 * kv_heads, size)
        rotated = parts[:, : heads + kv_heads]
        if layer.qk_norm is not None:
            rotated.copy_(functional.rms_norm(rotated, (size,), None, config.norm_eps).mul_(layer.qk_norm))
        rolled = rotated.roll(size // 2, -1)
        rotated.mul_(cos).addcmul_(rolled, sin)
        cache.index_copy_(1, step.cache_slots, parts[:, heads:].transpose(0, 1))
        keys, values = cache[:kv_heads], cache[kv_heads:]
        mixed = torch.empty(qkv.shape[0], heads * size, dtype=qkv.dtype)
        for span in step.spans:
            if span.end - span.start == 1:
                self._attend_one(parts, span, keys, values, mixed)
            else:
                self._attend_many(parts, span, keys, values, mixed)
        return mixed

    def _attend_one(
        self, parts: torch.Tensor, span: Span, keys: torch.Tensor, values: torch.Tensor, mixed: torch.Tensor
    ) -> None:
        """One token: the query heads that share a kv head are the rows of one small matrix, so nothing is repeated."""
        kv_heads, size = self._config.num_kv_heads, self._config.head_size
        first, last = span.cache_start, span.cache_start + span.length
        query = parts[span.start, : self._config.num_heads].view(kv_heads, -1, size)
        scores = torch.bmm(query, keys[:, first:last].transpose(1, 2)).mul_(self._scale)
        torch.bmm(
            torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype),
            values[:, first:last],
            out=mixed[span.start].view(kv_heads, -1, size),
        )

    def _attend_many(
        self, parts: torch.Tensor, span: Span, keys: torch.Tensor, values: torch.Tensor, mixed: torch.Tensor
    ) -> None:
        """Several tokens of one prompt: each sees everything up to itself."""
        heads, kv_heads, size = self._config.num_heads, self._config.num_kv_heads, self._config.head_size
        count, length, first = span.end - span.start, span.length, span.cache_start
        group = heads // kv_heads
        query = parts[span.start : span.end, :heads].view(count, kv_heads, group, size).permute(1, 2, 0, 3)
        shared = (kv_heads, group, length, size)
        key = keys[:, None, first : first + length].expand(shared)
        value = values[:, None, first : first + length].expand(shared)
        whole = count == length
        mask = None if whole else torch.ones(count, length, dtype=torch.bool).tril(length - count)
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=whole, scale=self._scale
        )
        mixed[span.start : span.end] = attended.permute(2, 0, 1, 3).reshape(count, heads * size)


def _adapt(
    adapters: tuple[AdapterSpan, ...], layer: int, site: int, inputs: torch.Tensor, outputs: torch.Tensor
) -> None:
    for span in adapters:
        delta = span.adapter.deltas[layer][site]
        if delta is not None:
            apply_delta(delta, inputs[span.start : span.end], outputs[span.start : span.end])
