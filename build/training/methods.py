"""
The peft configurations of the demo adapters.

Decides: modules, ranks and initial values by method name.
Does not know: tasks and training.
"""

from pathlib import Path

from peft import IA3Config, LoraConfig, PeftConfig, PromptEncoderConfig, PromptTuningConfig, PromptTuningInit, TaskType

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def lora(*, rank: int, alpha: int, modules: list[str], dora: bool = False) -> PeftConfig:
    """Low-rank updates of the named linear layers; with `dora` a magnitude of each output row beside them."""
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=rank, lora_alpha=alpha, target_modules=modules, use_dora=dora, lora_dropout=0.0
    )


def ia3() -> PeftConfig:
    """Scales of keys, values and the MLP's inner activations."""
    return IA3Config(
        task_type=TaskType.CAUSAL_LM,
        target_modules=["k_proj", "v_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    )


def prompt_tuning(*, virtual_tokens: int, text: str, base_directory: Path) -> PeftConfig:
    """Virtual tokens that start as the embeddings of a text."""
    return PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=virtual_tokens,
        prompt_tuning_init=PromptTuningInit.TEXT,
        prompt_tuning_init_text=text,
        tokenizer_name_or_path=str(base_directory),
    )


def p_tuning(*, virtual_tokens: int, encoder_size: int) -> PeftConfig:
    """Virtual tokens that come out of a small MLP while training; what is saved is its output."""
    return PromptEncoderConfig(
        task_type=TaskType.CAUSAL_LM, num_virtual_tokens=virtual_tokens, encoder_hidden_size=encoder_size
    )
