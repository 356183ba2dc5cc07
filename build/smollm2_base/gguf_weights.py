"""
The weights and the shape of a llama-architecture GGUF file, as Hugging Face's Llama has them.

Decides: names, dequantisation, and that the rows of q and k go back to the order that transformers' rotary embedding
expects (GGUF files of this architecture hold them interleaved).
Does not know: where the file came from, the tokenizer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, dequantize

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_BLOCK = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


class UnsupportedGguf(ValueError):
    """The file is not a llama-architecture GGUF as this converter knows it."""


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The numbers a Hugging Face config needs."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    max_positions: int
    rope_theta: float
    rms_norm_eps: float

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads


class GgufLlama:
    """A GGUF file of the llama architecture, read tensor by tensor."""

    def __init__(self, path: Path) -> None:
        self._reader = GGUFReader(path)
        architecture = self._value("general.architecture")
        if architecture != "llama":
            raise UnsupportedGguf(f"{path.name} is of architecture {architecture!r}; only 'llama' can be converted")
        rope_size = self._int("llama.rope.dimension_count")
        self.shape = LlamaShape(
            vocab_size=self._int("llama.vocab_size"),
            hidden_size=self._int("llama.embedding_length"),
            intermediate_size=self._int("llama.feed_forward_length"),
            num_layers=self._int("llama.block_count"),
            num_heads=self._int("llama.attention.head_count"),
            num_kv_heads=self._int("llama.attention.head_count_kv"),
            max_positions=self._int("llama.context_length"),
            rope_theta=self._float("llama.rope.freq_base"),
            # Stored as float32, 9.99999974e-06 for 1e-05: the shortest number that rounds to it is the one meant.
            rms_norm_eps=float(str(np.float32(self._float("llama.attention.layer_norm_rms_epsilon")))),
        )
        if rope_size != self.shape.head_size:
            raise UnsupportedGguf(
                f"{path.name} rotates {rope_size} of {self.shape.head_size} dimensions; only all are known"
            )

    @property
    def tensor_count(self) -> int:
        """How many tensors `tensors` yields."""
        return len(self._reader.tensors)

    @property
    def has_own_head(self) -> bool:
        """Whether the output layer has weights of its own, or shares the input embeddings'."""
        return any(tensor.name == "output.weight" for tensor in self._reader.tensors)

    def metadata_list(self, key: str) -> list[str | int]:
        """An array of the file's metadata."""
        value = self._value(key)
        if not isinstance(value, list):
            raise UnsupportedGguf(f"metadata {key!r} is not a list")
        return value

    def metadata_text(self, key: str) -> str:
        """A string of the file's metadata."""
        return str(self._value(key))

    def metadata_int(self, key: str) -> int:
        """A whole number of the file's metadata."""
        return self._int(key)

    def tensors(self) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        """
        Hugging Face name and float32 values of each tensor, [out, in] or [size], one at a time.

        Raises:
            UnsupportedGguf: a tensor that Llama does not have.
        """
        for tensor in self._reader.tensors:
            values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
                heads = self.shape.num_heads if tensor.name.endswith("attn_q.weight") else self.shape.num_kv_heads
                values = undo_permutation(values, heads)
            yield _hugging_face_name(tensor.name), values

    def _value(self, key: str) -> object:
        field = self._reader.get_field(key)
        if field is None:
            raise UnsupportedGguf(f"the file has no metadata {key!r}")
        value: object = field.contents()
        return value

    def _int(self, key: str) -> int:
        value = self._value(key)
        if not isinstance(value, int):
            raise UnsupportedGguf(f"metadata {key!r} is {value!r}, not a whole number")
        return value

    def _float(self, key: str) -> float:
        value = self._value(key)
        if not isinstance(value, float):
            raise UnsupportedGguf(f"metadata {key!r} is {value!r}, not a number")
        return value


def undo_permutation(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """
    Rows of q or k in transformers' order.

    weight: [heads * head_size, in]. GGUF holds a head's two rotary halves interleaved (0, half, 1, half + 1, …);
    transformers holds the first half, then the second.
    """
    rows, columns = weight.shape
    half = rows // heads // 2
    return weight.reshape(heads, half, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _hugging_face_name(name: str) -> str:
    if name in _TOP:
        return _TOP[name]
    prefix, _, rest = name.partition(".")
    block, _, part = rest.partition(".")
    if prefix != "blk" or not block.isdigit() or part not in _IN_BLOCK:
        raise UnsupportedGguf(f"tensor {name!r} has no place in a Llama")
    return f"model.layers.{block}.{_IN_BLOCK[part]}"
