"""
What an adapter_config.json asks for, as far as it can be served exactly.

Decides which settings of peft are understood, which change nothing at inference, and which must be off. A setting
this file has never heard of is refused when it is on: a new option of peft that alters the mathematics must not be
served as if it did not. Does not look at tensors (gateway/adapters/lora.py, ia3.py and virtual_tokens.py do).
"""

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from gateway.adapters.refusal import AdapterRefused, RefusalCode

MAX_CONFIG_BYTES = 1 << 20
MAX_PATTERNS = 4096
MAX_PATTERN_LENGTH = 256

# Keys that name places on the machine where the adapter was trained; they are no part of what a version is.
MACHINE_KEYS = ("base_model_name_or_path", "tokenizer_name_or_path", "revision")

AdapterKind = Literal["lora", "virtual-tokens"]

_COMMON_NEUTRAL = {
    *MACHINE_KEYS,
    "auto_mapping",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "peft_type",
    "peft_version",
    "target_modules",
    "task_type",
}
_LORA_READ = {"r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "init_lora_weights"}
_LORA_NEUTRAL = {
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
}
_IA3_NEUTRAL = {"init_ia3_weights", "feedforward_modules"}
_PROMPT_NEUTRAL = {
    "encoder_dropout",
    "encoder_hidden_size",
    "encoder_num_layers",
    "encoder_reparameterization_type",
    "num_attention_heads",
    "num_layers",
    "num_transformer_submodules",
    "num_virtual_tokens",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "tokenizer_kwargs",
    "token_dim",
}
_READABLE = {
    "LORA": _COMMON_NEUTRAL | _LORA_READ | _LORA_NEUTRAL,
    "IA3": _COMMON_NEUTRAL | _IA3_NEUTRAL,
    "PROMPT_TUNING": _COMMON_NEUTRAL | _PROMPT_NEUTRAL,
    "P_TUNING": _COMMON_NEUTRAL | _PROMPT_NEUTRAL,
}

# Initialisations that leave the base's weights as they are. The others subtract something from them.
_INIT_NEUTRAL = {"true", "false", "gaussian", "eva", "orthogonal", "mica"}

# Options with an answer of their own; any other key that is on and not readable gets the general one.
_OPTION_HINTS = {
    "modules_to_save": "Train without modules_to_save; whole replaced layers need an engine of their own.",
    "lora_bias": "Train with lora_bias=False; the engine has no place for a bias beside the low-rank product.",
    "bias": "Train with bias='none'; the engine has no place for trained biases.",
    "fan_in_fan_out": "Adapters for Conv1D layers are not served; train on linear layers with fan_in_fan_out=False.",
    "trainable_token_indices": "Train without trainable_token_indices; changed token rows need an engine of their own.",
    "alora_invocation_tokens": "Train a plain LoRA; one that switches on in mid-prompt cannot be served.",
    "layer_replication": "Train on the base as it is; replicated layers are another model.",
    "target_parameters": "Train with target_modules on linear layers instead of target_parameters.",
    "use_qalora": "Train without use_qalora.",
    "arrow_config": "Register the experts as profiles and choose between them in the request's model.",
}

_TYPE_HINTS = {
    "PREFIX_TUNING": "Keys and values per layer are no input embeddings; train prompt tuning or p-tuning instead.",
    "CARTRIDGE": "Keys and values per layer are no input embeddings; train prompt tuning or p-tuning instead.",
    "ADAPTION_PROMPT": "Keys and values per layer are no input embeddings; train prompt tuning or p-tuning instead.",
    "MULTITASK_PROMPT_TUNING": "Save one task's table as prompt tuning and hand that in.",
    "CPT": "Save its table as prompt tuning (key prompt_embeddings) and hand that in.",
    "OFT": "Its change has full rank; train LoRA or DoRA instead.",
    "BOFT": "Its change has full rank; train LoRA or DoRA instead.",
    "ROAD": "Its change has full rank; train LoRA or DoRA instead.",
    "LN_TUNING": "The engine cannot change norm scales per request; train LoRA or IA3 instead.",
    "XLORA": "Register the experts as profiles and choose between them in the request's model.",
    "POLY": "Register the experts as profiles and choose between them in the request's model.",
    "TRAINABLE_TOKENS": "Changed token rows need an engine of their own; train prompt tuning instead.",
}
_DEFAULT_TYPE_HINT = "Train LoRA, rsLoRA, DoRA, IA3, prompt tuning or p-tuning."


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """
    The settings that conversion reads. `base_name` is what the file says it was trained on, or None.

    `targets`: the module names the file lists, or None where it gives a pattern or only some layers.
    """

    peft_type: str
    base_name: str | None
    targets: frozenset[str] | None
    rank: int = 0
    alpha: float = 0.0
    rslora: bool = False
    dora: bool = False
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    virtual_tokens: int = 0
    encoder: str | None = None

    @property
    def kind(self) -> AdapterKind:
        return "lora" if self.peft_type in ("LORA", "IA3") else "virtual-tokens"

    def scaling(self, module: str) -> float:
        """The factor before B·A for one module, named as in the base (`model.layers.0.self_attn.q_proj`)."""
        rank = self.rank_of(module)
        alpha = self.alpha_pattern.get(_matching(self.alpha_pattern, module), self.alpha)
        return float(alpha / rank**0.5 if self.rslora else alpha / rank)

    def rank_of(self, module: str) -> int:
        """The rank the configuration gives one module."""
        return self.rank_pattern.get(_matching(self.rank_pattern, module), self.rank)


def _matching(patterns: dict[str, Any], module: str) -> str:
    # peft's own rule: the first pattern that matches the end of the name at a dot.
    for pattern in patterns:
        if _compiled(pattern).match(module):
            return pattern
    return module


@lru_cache(maxsize=2 * MAX_PATTERNS)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({pattern})$")


def parse_raw(content: bytes) -> dict[str, Any]:
    """
    The file as JSON, before anything is believed.

    Raises:
        AdapterRefused: it is larger than 1 MiB, no JSON, or no object.
    """
    if len(content) > MAX_CONFIG_BYTES:
        raise _invalid(f"adapter_config.json has {len(content)} bytes; at most {MAX_CONFIG_BYTES} are read.")
    try:
        raw = json.loads(content)
        # Half a surrogate pair, or nesting that can be read but not written, would fail later and elsewhere.
        json.dumps(raw, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _invalid("adapter_config.json is not JSON.") from error
    if not isinstance(raw, dict):
        raise _invalid("adapter_config.json is not a JSON object.")
    return raw


def canonical(raw: dict[str, Any]) -> bytes:
    """The configuration without the places of one machine, keys sorted: equal for equal adapters."""
    kept = {key: value for key, value in raw.items() if key not in MACHINE_KEYS}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def kind_of(raw: dict[str, Any]) -> AdapterKind:
    """
    Which of the two kinds of tuning it is, without the rest of the checks. Raises AdapterRefused on an unknown type.
    """
    return "lora" if _peft_type(raw) in ("LORA", "IA3") else "virtual-tokens"


def load_config(path: Path) -> PeftConfig:
    """Read and check a configuration file. Raises AdapterRefused."""
    return parse_config(parse_raw(path.read_bytes()))


def parse_config(raw: dict[str, Any]) -> PeftConfig:
    """
    Check every setting.

    Raises:
        AdapterRefused: a type, an option or a value that cannot be served exactly.
    """
    peft_type = _peft_type(raw)
    task = raw.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise AdapterRefused(
            RefusalCode.OPTION_UNSUPPORTED,
            f"The adapter was trained for task_type {task!r}.",
            "Only CAUSAL_LM adapters can be served.",
            {"option": "task_type"},
        )
    _check_options(raw, peft_type)
    base = raw.get("base_model_name_or_path")
    base_name = base if isinstance(base, str) and base.strip("./ ") else None
    if peft_type == "LORA":
        _check_init(raw.get("init_lora_weights", True))
        return PeftConfig(
            peft_type=peft_type,
            base_name=base_name,
            targets=_targets(raw),
            rank=_whole(raw, "r", 8, 1, 1 << 16),
            alpha=_number(raw.get("lora_alpha", 8), "lora_alpha"),
            rslora=_flag(raw, "use_rslora"),
            dora=_flag(raw, "use_dora"),
            rank_pattern={
                key: _whole({"rank_pattern": value}, "rank_pattern", 0, 1, 1 << 16)
                for key, value in _pattern(raw, "rank_pattern").items()
            },
            alpha_pattern={
                key: _number(value, "alpha_pattern") for key, value in _pattern(raw, "alpha_pattern").items()
            },
        )
    if peft_type == "IA3":
        return PeftConfig(peft_type=peft_type, base_name=base_name, targets=_targets(raw))
    if raw.get("num_transformer_submodules") not in (None, 1):
        raise _invalid("num_transformer_submodules must be 1: the engine has one decoder.")
    encoder = raw.get("encoder_reparameterization_type")
    return PeftConfig(
        peft_type=peft_type,
        base_name=base_name,
        targets=None,
        virtual_tokens=_whole(raw, "num_virtual_tokens", None, 1, 1 << 20),
        encoder=encoder if isinstance(encoder, str) else None,
    )


def spoken_base(name: str) -> str:
    """The last part of a base's path or hub name, in lower case, for comparing."""
    return PurePosixPath(name.replace("\\", "/")).name.lower()


def _peft_type(raw: dict[str, Any]) -> str:
    peft_type = raw.get("peft_type")
    if not isinstance(peft_type, str):
        raise _invalid("adapter_config.json has no peft_type.")
    if peft_type not in _READABLE:
        raise AdapterRefused(
            RefusalCode.PEFT_TYPE_UNSUPPORTED,
            f"Adapters of type {peft_type[:40]} cannot be converted.",
            _TYPE_HINTS.get(peft_type, _DEFAULT_TYPE_HINT),
            {"peft_type": peft_type[:40]},
        )
    return peft_type


def _check_options(raw: dict[str, Any], peft_type: str) -> None:
    for key, value in raw.items():
        if key in _READABLE[peft_type] or _is_off(key, value):
            continue
        raise AdapterRefused(
            RefusalCode.OPTION_UNSUPPORTED,
            f"adapter_config.json sets {key[:60]}, which cannot be served.",
            _OPTION_HINTS.get(key, f"Train without {key[:60]}, or leave it at its default."),
            {"option": key[:60]},
        )


def _is_off(key: str, value: object) -> bool:
    return not value or (key == "bias" and value == "none")


def _check_init(value: object) -> None:
    name = str(value).lower()
    if name not in _INIT_NEUTRAL:
        raise AdapterRefused(
            RefusalCode.BASE_WEIGHTS_ALTERED,
            f"The adapter was initialised with {name[:40]}, which changed the base's own weights.",
            "Save it with peft's save_pretrained(path_initial_model_for_weight_conversion=...), which turns it into a "
            "plain LoRA of twice the rank.",
            {"option": "init_lora_weights", "value": name[:40]},
        )


def _targets(raw: dict[str, Any]) -> frozenset[str] | None:
    targets = raw.get("target_modules")
    partial = raw.get("layers_to_transform") is not None or raw.get("exclude_modules")
    if partial or not isinstance(targets, list) or not all(isinstance(item, str) for item in targets):
        return None
    return frozenset(targets)


def _pattern(raw: dict[str, Any], key: str) -> dict[str, Any]:
    pattern = raw.get(key) or {}
    if not isinstance(pattern, dict) or len(pattern) > MAX_PATTERNS:
        raise _invalid(f"{key} must be an object of at most {MAX_PATTERNS} entries.")
    for name in pattern:
        if len(name) > MAX_PATTERN_LENGTH:
            raise _invalid(f"{key} has a pattern of more than {MAX_PATTERN_LENGTH} characters.")
        try:
            _compiled(name)
        except (re.error, RecursionError, OverflowError) as error:
            raise _invalid(f"{key} has a pattern that is no regular expression: {name[:60]!r}.") from error
    return pattern


def _whole(raw: dict[str, Any], key: str, default: int | None, low: int, high: int) -> int:
    value = raw.get(key, default)
    if type(value) is not int or not low <= value <= high:
        raise _invalid(f"{key} must be a whole number from {low} to {high}.")
    return value


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise _invalid(f"{key} must be a finite number.")
    return float(value)


def _flag(raw: dict[str, Any], key: str) -> bool:
    value = raw.get(key, False)
    if not isinstance(value, bool) and value is not None:
        raise _invalid(f"{key} must be true or false.")
    return bool(value)


def _invalid(message: str) -> AdapterRefused:
    return AdapterRefused(
        RefusalCode.INVALID_CONFIG,
        message,
        "Hand in the adapter_config.json that peft's save_pretrained wrote.",
        {"file": "adapter_config.json"},
    )
