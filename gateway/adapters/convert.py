"""
One version's adapters to the tensors of one engine.

Decides what may be combined, that base and adapter belong together, and what the report says. Reads files and writes
files; knows nothing of stores, tenants or processes (gateway/adapters/bounded.py puts a wall around it).
"""

from collections.abc import Sequence
from pathlib import Path

from gateway.adapters.directory import AdapterFiles
from gateway.adapters.ia3 import ia3_rows
from gateway.adapters.lora import lora_rows
from gateway.adapters.modules import MODULES
from gateway.adapters.peft_config import PeftConfig, load_config, spoken_base
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.adapters.rows import Row, complete, write_rows
from gateway.adapters.safetensors_file import SafetensorsFile
from gateway.adapters.virtual_tokens import write_table
from gateway.domain.manifest import EngineManifest
from gateway.domain.version import AdapterReport, Conversion, DerivedLora, DerivedPrompt

CONVERTER_VERSION = 1
"""Raised when the same files would give other bytes, so that what earlier versions derived is derived again."""


def convert(
    adapters: Sequence[AdapterFiles], engine: EngineManifest, folder: Path, *, any_base_name: bool = False
) -> Conversion:
    """
    Write the engine's tensors into `folder` and say what was made.

    Raises:
        AdapterRefused: they cannot be served exactly by this engine; files may be left in `folder`.
    """
    lora: DerivedLora | None = None
    prompt: DerivedPrompt | None = None
    reports = []
    for files in adapters:
        config = load_config(files.config)
        notes = _check_base(config, engine, any_base_name=any_base_name)
        tensors = SafetensorsFile(files.weights)
        if config.kind == "lora":
            if lora is not None:
                raise _two_of_a_kind("two of the LoRA family")
            lora, report = _lora(config, tensors, engine, folder, notes)
        else:
            if prompt is not None:
                raise _two_of_a_kind("two sets of virtual tokens")
            prompt, report = _prompt(config, tensors, engine, folder, notes)
        reports.append(report)
    return Conversion(converter=CONVERTER_VERSION, lora=lora, prompt=prompt, reports=tuple(reports))


def _lora(
    config: PeftConfig, file: SafetensorsFile, engine: EngineManifest, folder: Path, notes: tuple[str, ...]
) -> tuple[DerivedLora, AdapterReport]:
    ability = engine.lora
    if ability is None:
        raise AdapterRefused(
            RefusalCode.LORA_UNSUPPORTED,
            f"The engine of {engine.base.name} was built without LoRA.",
            "Build the engine with LoRA modules, or train prompt tuning.",
            {"engine": engine.base.name},
        )
    rows = lora_rows(config, file, engine) if config.peft_type == "LORA" else ia3_rows(config, file, engine)
    _check_attention_output(rows, engine)
    derived = write_rows(complete(rows, engine), engine, ability, folder)
    tuned = {row.place.module.name for row in rows}
    report = AdapterReport(
        peft_type=config.peft_type,
        formula=_formula(config),
        layers=len({row.place.layer for row in rows}),
        modules=tuple(module.leaf for module in MODULES if module.name in tuned),
        ranks=(min(row.rank for row in rows), max(row.rank for row in rows)) if config.peft_type == "LORA" else (),
        notes=notes,
    )
    return derived, report


def _prompt(
    config: PeftConfig, file: SafetensorsFile, engine: EngineManifest, folder: Path, notes: tuple[str, ...]
) -> tuple[DerivedPrompt, AdapterReport]:
    derived = write_table(config, file, engine, folder)
    report = AdapterReport(peft_type=config.peft_type, formula="table", virtual_tokens=derived.rows, notes=notes)
    return derived, report


def _formula(config: PeftConfig) -> str:
    if config.peft_type == "IA3":
        return "m * (W x + b)"
    scale = "alpha / sqrt(r)" if config.rslora else "alpha / r"
    return f"m * (W x + {scale} B A x)" if config.dora else f"W x + b + {scale} B A x"


def _check_base(config: PeftConfig, engine: EngineManifest, *, any_base_name: bool) -> tuple[str, ...]:
    if config.base_name is None:
        return ("The adapter does not say which base it was trained on; only its shapes were compared.",)
    known = {engine.base.name.lower(), spoken_base(engine.base.checkpoint)}
    trained_on = spoken_base(config.base_name)
    if trained_on in known:
        return ()
    if any_base_name:
        return (f"The adapter says it was trained on {trained_on}; that check was waived.",)
    raise AdapterRefused(
        RefusalCode.BASE_MISMATCH,
        f"The adapter says it was trained on {trained_on}, not on {engine.base.name}.",
        "Name the right base with --base; if it is the same model under another name, repeat with --any-base-name.",
        {"trained_on": trained_on, "base": engine.base.name},
    )


def _check_attention_output(rows: Sequence[Row], engine: EngineManifest) -> None:
    """
    TensorRT-LLM takes o_proj's input to be as wide as the hidden state.

    Where heads times head size is another number it would read the factors wrongly. Source: cpp/tensorrt_llm/runtime/
    loraModule.cpp; unverified on a GPU.
    """
    wide = engine.num_heads * engine.head_size
    if engine.engine.kind == "reference" or wide == engine.hidden_size:
        return
    if any(row.place.module.name == "attn_dense" for row in rows):
        raise AdapterRefused(
            RefusalCode.MODULE_UNSUPPORTED,
            f"The adapter tunes o_proj, whose input on {engine.base.name} is {wide} wide; the engine would take it for "
            f"{engine.hidden_size}.",
            "Train without o_proj.",
            {"module": "self_attn.o_proj"},
        )


def _two_of_a_kind(what: str) -> AdapterRefused:
    return AdapterRefused(
        RefusalCode.COMBINATION_UNSUPPORTED,
        f"A profile can carry one adapter of the LoRA family and one set of virtual tokens, not {what}.",
        "Register them as two profiles, or merge them in peft (combination_type='cat') first.",
    )
