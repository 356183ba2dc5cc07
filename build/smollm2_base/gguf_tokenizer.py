"""
SmolLM2's tokenizer out of a GGUF file's vocabulary and merges.

Decides: the pre-tokenisation (each digit alone, then bytes), special tokens, and the files of a Hugging Face directory.
Does not know: the weights.

transformers' own GGUF reader leaves the digit rule out, and so do its GPT2Tokenizer classes even when they are given a
right tokenizer.json: "x  5" then becomes other tokens than the model was trained on. Hence the class that is named
here.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from build.smollm2_base.gguf_weights import GgufLlama, UnsupportedGguf

_CONTROL_TOKEN = 3


def read_tokenizer(source: GgufLlama) -> Tokenizer:
    """
    Build the tokenizer: no normaliser, no beginning-of-text token, no blank put in front.

    Raises:
        UnsupportedGguf: the file names another pre-tokenisation than SmolLM's.
    """
    kind = (source.metadata_text("tokenizer.ggml.model"), source.metadata_text("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise UnsupportedGguf(f"the tokenizer is {kind}; only byte-level BPE with SmolLM's rule for digits is known")
    tokens = [str(token) for token in source.metadata_list("tokenizer.ggml.tokens")]
    types = source.metadata_list("tokenizer.ggml.token_type")
    merges = [_pair(str(merge)) for merge in source.metadata_list("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind_of in zip(tokens, types, strict=True)
            if kind_of == _CONTROL_TOKEN
        ]
    )
    return tokenizer


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def write_tokenizer(source: GgufLlama, directory: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokenizer = read_tokenizer(source)
    tokenizer.save(str(directory / "tokenizer.json"))

    def token(key: str) -> str:
        return str(tokenizer.id_to_token(source.metadata_int(f"tokenizer.ggml.{key}_token_id")))

    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": token("bos"),
        "clean_up_tokenization_spaces": False,
        "eos_token": token("eos"),
        "model_max_length": source.shape.max_positions,
        "pad_token": token("padding"),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": token("unknown"),
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    template = source.metadata_text("tokenizer.chat_template")
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
