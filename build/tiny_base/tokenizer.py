"""
The tiny base's tokenizer and chat template.

Decides: special tokens and their ids, the byte-level BPE trained on generated text, the chat form, and the files a
Hugging Face directory needs for both.
Does not know: the model.

The chat form is `<|s|>[<|system|>TEXT]<|user|>TEXT<|assistant|>ANSWER<|end|>`, with no blank and no line break between
the markers and the text. So the generation prompt ends in `<|assistant|>`, an answer's first token carries no blank,
and text decoded from an answer's ids is the answer, with nothing to strip.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from build.tasks.example import Side, examples
from build.tasks.tiny_tasks import ALL_TASKS, NO_INSTRUCTION

PAD, START, SYSTEM, USER, ASSISTANT, END = SPECIALS = (
    "<|pad|>",
    "<|s|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)
MAX_POSITIONS = 1024

CHAT_TEMPLATE = (
    "{{- '<|s|>' }}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{{- '<|system|>' + message['content'] }}"
    "{%- elif message['role'] == 'user' %}{{- '<|user|>' + message['content'] }}"
    "{%- elif message['role'] == 'assistant' %}{{- '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{%- else %}{{- raise_exception('tiny knows the roles system, user and assistant, not ' + message['role']) }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}\n"
)


def chat_prompt(user: str, *, system: str | None = None) -> str:
    """The chat template's result for one user message, with the generation prompt; a test holds the two together."""
    instruction = "" if system is None else f"{SYSTEM}{system}"
    return f"{START}{instruction}{USER}{user}{ASSISTANT}"


def _corpus(seed: int) -> Iterable[str]:
    yield NO_INSTRUCTION
    for task in ALL_TASKS:
        yield task.instruction
        for example in examples(task, 6000, seed=seed, side=Side.TRAINING, distinct=False):
            yield example.prompt
            yield example.answer


def train_tokenizer(seed: int) -> Tokenizer:
    """Byte-level BPE: every byte is a token, so that no text is unknown; the tasks' common words are one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(seed), trainer)
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write tokenizer.json (all that bare `tokenizers` needs), tokenizer_config.json and chat_template.jinja."""
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": START,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "model_max_length": MAX_POSITIONS,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
