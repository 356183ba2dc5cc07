"""An adapter's rows, and what they do to a product."""

import torch
from tailor_engine.adapter import DENSE, DOWN, GATE_UP, QKV, apply_delta, build_adapter
from tailor_engine.checkpoint import ModelConfig
from tailor_engine.manifest import LoraAbility
from tailor_engine.request import LoraInput
from tailor_engine.rotary import RotaryConfig

CONFIG = ModelConfig(
    architecture="LlamaForCausalLM",
    vocab_size=50,
    hidden_size=24,
    intermediate_size=40,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_size=8,
    max_positions=64,
    norm_eps=1e-6,
    tied_embeddings=True,
    qk_norm=False,
    rotary=RotaryConfig(8, 10000.0),
)
ABILITY = LoraAbility(
    dtype="float32",
    max_rank=16,
    modules=("attn_qkv", "attn_q", "attn_k", "attn_v", "attn_dense", "mlp_h_to_4h", "mlp_4h_to_h", "mlp_gate"),
    dora=True,
    config_columns=4,
    cache_bytes=1 << 20,
)
# module id: site, first output column, inputs, outputs. Queries are 32 wide here, wider than the hidden state.
PLACES = {
    0: (QKV, 0, 24, 64),
    1: (QKV, 0, 24, 32),
    2: (QKV, 32, 24, 16),
    3: (QKV, 48, 24, 16),
    4: (DENSE, 0, 32, 24),
    5: (GATE_UP, 0, 24, 40),
    7: (GATE_UP, 40, 24, 40),
    6: (DOWN, 0, 40, 24),
}
WIDTHS = {QKV: 64, DENSE: 24, GATE_UP: 80, DOWN: 24}
INPUTS = {QKV: 24, DENSE: 32, GATE_UP: 24, DOWN: 40}


def _input(rows: list[tuple[int, int, int, int]], values: list[torch.Tensor]) -> LoraInput:
    width = max(value.numel() for value in values)
    weights = torch.zeros(len(rows), width)
    for place, value in enumerate(values):
        weights[place, : value.numel()] = value
    return LoraInput(9, weights, torch.tensor(rows, dtype=torch.int32))


def test_every_module_acts_on_its_own_columns_with_its_own_rank() -> None:
    torch.manual_seed(3)
    expected = {(layer, site): torch.zeros(WIDTHS[site], INPUTS[site]) for layer in range(2) for site in WIDTHS}
    scales = {(layer, site): torch.ones(WIDTHS[site]) for layer in range(2) for site in WIDTHS}
    rows, values = [], []
    for layer in range(2):
        for module, (site, start, inputs, outputs) in PLACES.items():
            rank, dora = 1 + (module + layer) % 5, (module + layer) % 2
            a, b, m = torch.randn(rank, inputs), torch.randn(outputs, rank), torch.rand(outputs)
            rows.append((module, layer, rank, dora))
            values.append(torch.cat([a.flatten(), b.flatten(), *([m] if dora else [])]))
            expected[layer, site][start : start + outputs] += b @ a
            if dora and module != 0:
                scales[layer, site][start : start + outputs] = m
    # the fused row must not carry a magnitude here: it would cover the single ones
    keep = [place for place, row in enumerate(rows) if not (row[0] == 0 and row[3] == 1)]
    for place, row in enumerate(rows):
        if place not in keep:
            site, start, inputs, outputs = PLACES[row[0]]
            a = values[place][: row[2] * inputs].view(row[2], inputs)
            b = values[place][row[2] * inputs : row[2] * (inputs + outputs)].view(outputs, row[2])
            expected[row[1], site] -= b @ a
    lora = _input([rows[place] for place in keep], [values[place] for place in keep])
    adapter = build_adapter(lora, ABILITY, CONFIG, torch.float32)
    for (layer, site), delta_weight in expected.items():
        given, result = torch.randn(5, INPUTS[site]), torch.randn(5, WIDTHS[site])
        wanted = scales[layer, site] * (result + given @ delta_weight.t())
        delta = adapter.deltas[layer][site]
        assert delta is not None
        apply_delta(delta, given, result)
        assert torch.allclose(result, wanted, atol=1e-5)


def test_layers_and_sites_without_a_row_are_left_alone() -> None:
    lora = _input([(4, 1, 2, 0)], [torch.randn(2 * (32 + 24))])
    adapter = build_adapter(lora, ABILITY, CONFIG, torch.float32)
    assert adapter.deltas[0] == (None, None, None, None)
    assert [delta is None for delta in adapter.deltas[1]] == [True, False, True, True]


def test_its_size_is_what_it_holds() -> None:
    lora = _input([(4, 1, 2, 0), (1, 0, 3, 1)], [torch.randn(2 * (32 + 24)), torch.randn(3 * (24 + 32) + 32)])
    adapter = build_adapter(lora, ABILITY, CONFIG, torch.float32)
    assert adapter.nbytes == 4 * (2 * (32 + 24) + 3 * (24 + 32) + 64)  # a magnitude covers the whole fused width


def test_a_magnitude_without_a_product_costs_no_product() -> None:
    values = torch.cat([torch.zeros(8 * (24 + 16)), torch.rand(16)])
    adapter = build_adapter(_input([(2, 0, 8, 1)], [values]), ABILITY, CONFIG, torch.float32)
    delta = adapter.deltas[0][QKV]
    assert delta is not None
    assert delta.a is None
    assert delta.ups == ()
    outputs = torch.ones(3, 64)
    apply_delta(delta, torch.randn(3, 24), outputs)
    assert torch.equal(outputs[:, 32:48], values[-16:].expand(3, -1))
    assert torch.equal(outputs[:, :32], torch.ones(3, 32))
