"""
Tokenizers that the tests are run on: the committed one, a real one where it was converted, and one of each kind.
"""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

ROOT = Path(__file__).parents[3]
TINY = ROOT / "build" / "tiny"
SMOLLM2 = ROOT / ".cache" / "models" / "smollm2-135m-instruct"

_SPECIALS = ["<unk>", "<s>", "</s>"]
_WORDS = ["▁", *"abcdehlorw!", "é", "中", "文", "▁h", "ll", "▁w", "he", "▁he"]
_MERGES = [("▁", "h"), ("l", "l"), ("▁", "w"), ("h", "e"), ("▁h", "e")]


def sentencepiece(*, prepend: str = "first", strip: bool = True) -> Tokenizer:
    """The kind of Llama 2, Mistral and Gemma: a mark for a space, bytes for what has no token of its own."""
    pieces = [*_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *_WORDS]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=_MERGES, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in _SPECIALS])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=prepend, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def wordpiece() -> Tokenizer:
    """A kind whose tokens' text depends on their neighbours."""
    pieces = ["[UNK]", "[SEP]", "to", "##ken", "##s", "are", "word", "##s", ",", ".", "é", "中", "##文"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken("[SEP]", special=True)])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def byte_level(extra: list[AddedToken] | None = None) -> Tokenizer:
    """GPT-2's kind with no merges at all: every byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.add_tokens(extra or [])
    return tokenizer
