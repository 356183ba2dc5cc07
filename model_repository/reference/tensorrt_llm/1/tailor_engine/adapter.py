"""
One LoRA-family adapter, from the rows it travels in to what the decoder multiplies with.

Decides what is a valid adapter for this engine, and its size. Does not know the cache nor the batch.
Row layout and texts: contract, sections 4.1 and 4.2. A row is A [rank, in], then B [out, rank], then, for DoRA, a
magnitude [out]; y = m * (W x + b + B A x).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .checkpoint import ModelConfig
from .errors import RequestError
from .manifest import DTYPES, LoraAbility
from .request import LoraInput

MODULE_NAMES = {
    0: "attn_qkv",
    1: "attn_q",
    2: "attn_k",
    3: "attn_v",
    4: "attn_dense",
    5: "mlp_h_to_4h",
    6: "mlp_4h_to_h",
    7: "mlp_gate",
    8: "cross_attn_qkv",
    9: "cross_attn_q",
    10: "cross_attn_k",
    11: "cross_attn_v",
    12: "cross_attn_dense",
    13: "moe_h_to_4h",
    14: "moe_4h_to_h",
    15: "moe_gate",
    16: "moe_router",
    17: "mlp_router",
    18: "mlp_gate_up",
}

QKV, DENSE, GATE_UP, DOWN = 0, 1, 2, 3
SITES = (QKV, DENSE, GATE_UP, DOWN)


@dataclass(frozen=True)
class ModuleShape:
    """Where a module's output lies: columns [start, start + out) of the fused matrix of `site`."""

    site: int
    start: int
    inputs: int
    outputs: int


def module_shapes(config: ModelConfig) -> Mapping[str, ModuleShape]:
    """The modules this engine can adapt. mlp_h_to_4h is Hugging Face's gate_proj, mlp_gate its up_proj."""
    hidden, inner, q, kv = config.hidden_size, config.intermediate_size, config.q_size, config.kv_size
    return {
        "attn_qkv": ModuleShape(QKV, 0, hidden, q + 2 * kv),
        "attn_q": ModuleShape(QKV, 0, hidden, q),
        "attn_k": ModuleShape(QKV, q, hidden, kv),
        "attn_v": ModuleShape(QKV, q + kv, hidden, kv),
        "attn_dense": ModuleShape(DENSE, 0, q, hidden),
        "mlp_h_to_4h": ModuleShape(GATE_UP, 0, hidden, inner),
        "mlp_gate": ModuleShape(GATE_UP, inner, hidden, inner),
        "mlp_4h_to_h": ModuleShape(DOWN, 0, inner, hidden),
    }


@dataclass(frozen=True, eq=False)
class UpPart:
    """Adds hidden[:, rank_start:rank_end] @ b to columns [start, end) of the site's output. b: [rank, out]."""

    rank_start: int
    rank_end: int
    start: int
    end: int
    b: torch.Tensor


@dataclass(frozen=True, eq=False)
class SiteDelta:
    """
    What an adapter does at one fused matrix of one layer.

    a          [in, total rank] of all modules of the site side by side, or None when every B is zero
    magnitude  [out] over the whole fused output, 1 where the site is not scaled; or None
    """

    a: torch.Tensor | None
    ups: tuple[UpPart, ...]
    magnitude: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Adapter:
    """deltas[layer][site] is None where the adapter leaves the base alone. nbytes: what it holds."""

    task_id: int
    deltas: tuple[tuple[SiteDelta | None, ...], ...]
    nbytes: int


@dataclass(frozen=True)
class _Row:
    module: ModuleShape
    name: str
    layer: int
    rank: int
    is_dora: bool
    index: int


def check_lora_form(lora: LoraInput) -> None:
    """
    What can be said before the cache is asked: id present, weights and config together.

    Raises:
        RequestError
    """
    if lora.task_id is None:
        raise RequestError("lora_task_id must be set for LoRA inference")
    if (lora.weights is None) != (lora.config is None):
        raise RequestError("Request for LoRA inference must have both lora_weights and lora_keys")


def build_adapter(lora: LoraInput, ability: LoraAbility, config: ModelConfig, dtype: torch.dtype) -> Adapter:
    """
    Check an adapter's rows and bring them into the form the decoder uses.

    lora.weights [rows, width] and lora.config [rows, 3 or 4] are both present.

    Raises:
        RequestError: with TensorRT-LLM's text for the first row that does not fit.
    """
    weights, rows = lora.weights, lora.config
    if lora.task_id is None or weights is None or rows is None:
        raise RequestError("Request for LoRA inference must have both lora_weights and lora_keys")
    _check_shapes(weights, rows, ability)
    checked = _check_rows(weights, rows, ability, config)
    by_site: dict[tuple[int, int], list[_Row]] = {}
    for row in checked:
        by_site.setdefault((row.layer, row.module.site), []).append(row)
    widths = {
        QKV: config.q_size + 2 * config.kv_size,
        DENSE: config.hidden_size,
        GATE_UP: 2 * config.intermediate_size,
        DOWN: config.hidden_size,
    }
    deltas: list[tuple[SiteDelta | None, ...]] = []
    nbytes = 0
    for layer in range(config.num_layers):
        sites: list[SiteDelta | None] = []
        for site in SITES:
            here = by_site.get((layer, site))
            delta = None if here is None else _site_delta(here, weights, widths[site], dtype)
            sites.append(delta)
            nbytes += 0 if delta is None else _nbytes(delta)
        deltas.append(tuple(sites))
    return Adapter(lora.task_id, tuple(deltas), nbytes)


def _check_shapes(weights: torch.Tensor, rows: torch.Tensor, ability: LoraAbility) -> None:
    if weights.dim() != 2:
        raise RequestError("Invalid shape for lora_weights tensor")
    if rows.dim() != 2:
        raise RequestError("Invalid shape for lora_keys tensor")
    if rows.dtype != torch.int32:
        raise RequestError(f"Expected  lora keys to have TYPE_INT32 but was {rows.dtype}")
    if rows.shape[0] != weights.shape[0]:
        raise RequestError("Expected dim1 lora_weights and lora_keys to have the same size")
    if rows.shape[1] not in (3, 4):
        raise RequestError("Expected dim2 of lora_keys to have a size in [3, 4]")
    if weights.dtype != DTYPES[ability.dtype]:
        raise RequestError("Expected lora weights to be the same data type as base model")


def _check_rows(weights: torch.Tensor, rows: torch.Tensor, ability: LoraAbility, config: ModelConfig) -> list[_Row]:
    shapes = module_shapes(config)
    checked: list[_Row] = []
    seen: set[tuple[int, str]] = set()
    for index, values in enumerate(rows.tolist()):
        module_id, layer, rank = values[:3]
        is_dora = len(values) == 4 and bool(values[3])
        if not 0 <= layer < config.num_layers:
            raise RequestError("Expected layerId to be in the range [0, numModelLayers)")
        if rank <= 0:
            raise RequestError("Expected adapterSize to be > 0")
        name = MODULE_NAMES.get(module_id, f"invalid module id {module_id}")
        if name not in ability.modules or name not in shapes:
            raise RequestError(f"lora module {name} not enabled for this model")
        shape = shapes[name]
        needed = rank * (shape.inputs + shape.outputs) + (shape.outputs if is_dora else 0)
        if needed > weights.shape[1]:
            raise RequestError(f"lora_weights has to few values for {name}")
        if rank > ability.max_rank:
            raise RequestError(
                f"Invalid low_rank ({rank}). low_rank must be smaller than mMaxLowRank ({ability.max_rank})"
            )
        # TensorRT-LLM without its DoRA plug-in drops the magnitude in silence and answers wrongly; we refuse.
        if is_dora and not ability.dora:
            raise RequestError(f"lora module {name} carries a DoRA magnitude, but this engine has no DoRA support")
        if (layer, name) in seen:
            raise RequestError(f"lora module {name} is given twice for layer {layer}")
        seen.add((layer, name))
        checked.append(_Row(shape, name, layer, rank, is_dora, index))
    return checked


def _site_delta(rows: list[_Row], weights: torch.Tensor, width: int, dtype: torch.dtype) -> SiteDelta:
    downs: list[torch.Tensor] = []
    ups: list[UpPart] = []
    magnitude: torch.Tensor | None = None
    rank_start = 0
    for row in rows:
        shape, values = row.module, weights[row.index]
        a_end = row.rank * shape.inputs
        b_end = a_end + shape.outputs * row.rank
        b = values[a_end:b_end].view(shape.outputs, row.rank)
        if torch.count_nonzero(b):  # IA3 travels as a magnitude with B = 0: nothing to multiply
            downs.append(values[:a_end].view(row.rank, shape.inputs))
            ups.append(
                UpPart(
                    rank_start,
                    rank_start + row.rank,
                    shape.start,
                    shape.start + shape.outputs,
                    b.t().to(dtype).contiguous(),
                )
            )
            rank_start += row.rank
        if row.is_dora:
            if magnitude is None:
                magnitude = torch.ones(width, dtype=dtype)
            magnitude[shape.start : shape.start + shape.outputs] = values[b_end : b_end + shape.outputs]
    a = torch.cat(downs).to(dtype).t().contiguous() if downs else None
    return SiteDelta(a, tuple(ups), magnitude)


def _nbytes(delta: SiteDelta) -> int:
    tensors = [delta.a, delta.magnitude, *(up.b for up in delta.ups)]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def apply_delta(delta: SiteDelta, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
    """
    Turn W x + b into m * (W x + b + B A x), in place.

    inputs   [tokens of this adapter, in]
    outputs  [tokens of this adapter, out], a view of the fused output
    """
    if delta.a is not None:
        low = inputs.mm(delta.a)
        for up in delta.ups:
            outputs[:, up.start : up.end].addmm_(low[:, up.rank_start : up.rank_end], up.b)
    if delta.magnitude is not None:
        outputs.mul_(delta.magnitude)
