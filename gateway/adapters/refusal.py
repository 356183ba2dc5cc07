"""
How an adapter is turned away: one error, with a code, the reason, and what would work instead.

Decides the list of codes, which people script against. Knows neither how a check is made nor how a refusal travels.
"""

from collections.abc import Mapping
from enum import StrEnum


class RefusalCode(StrEnum):
    """Why an adapter was refused; the text of each is part of the admin API."""

    # What was handed in cannot be read.
    MISSING_FILE = "missing_file"
    PICKLE_WEIGHTS = "pickle_weights"
    SYMLINK_OUTSIDE = "symlink_outside"
    NOT_A_REGULAR_FILE = "not_a_regular_file"
    INVALID_SAFETENSORS = "invalid_safetensors"
    INVALID_CONFIG = "invalid_config"
    # It can be read, and cannot be converted exactly.
    PEFT_TYPE_UNSUPPORTED = "peft_type_unsupported"
    OPTION_UNSUPPORTED = "option_unsupported"
    BASE_WEIGHTS_ALTERED = "base_weights_altered"
    TENSOR_UNKNOWN = "tensor_unknown"
    TENSOR_MISSING = "tensor_missing"
    MODULE_UNSUPPORTED = "module_unsupported"
    INPUT_SCALE_UNSUPPORTED = "input_scale_unsupported"
    DTYPE_UNSUPPORTED = "dtype_unsupported"
    RANK_MISMATCH = "rank_mismatch"
    NOT_FINITE = "not_finite"
    VALUE_OUT_OF_RANGE = "value_out_of_range"
    NO_EFFECT = "no_effect"
    COMBINATION_UNSUPPORTED = "combination_unsupported"
    # It could be converted, and this engine cannot serve it.
    BASE_MISMATCH = "base_mismatch"
    BASE_UNREADABLE = "base_unreadable"
    LORA_UNSUPPORTED = "lora_unsupported"
    DORA_UNSUPPORTED = "dora_unsupported"
    DORA_BIASED_LAYER = "dora_biased_layer"
    MODULE_NOT_ENABLED = "module_not_enabled"
    LAYER_OUT_OF_RANGE = "layer_out_of_range"
    RANK_TOO_LARGE = "rank_too_large"
    SHAPE_MISMATCH = "shape_mismatch"
    ADAPTER_TOO_LARGE = "adapter_too_large"
    PROMPT_TABLE_UNSUPPORTED = "prompt_table_unsupported"
    TOO_MANY_VIRTUAL_TOKENS = "too_many_virtual_tokens"
    # The bounded process that converts ended without an answer.
    CONVERSION_FAILED = "conversion_failed"
    CONVERSION_TIMEOUT = "conversion_timeout"


class AdapterRefused(Exception):
    """
    An adapter cannot be served exactly, so it is not served at all.

    `message`: what is wrong, in one sentence. `hint`: what would work instead. `details`: names and numbers as text,
    for programs.
    """

    def __init__(self, code: RefusalCode, message: str, hint: str, details: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{message} {hint}")
        self.code = code
        self.message = message
        self.hint = hint
        self.details: dict[str, str] = dict(details or {})
