"""The model with its LoRA (PEFT), and the loop (transformers' Trainer) that trains it from a seed."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from bargain_env.errors import InputError
from experiments.training_log import TrainingLog
from hyperlora.base import load_base
from hyperlora.tokens import add_markers
from hyperlora.train import StepReport

from .settings import Machine, Settings
from .tokens import Padded, TokenRows


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed what PEFT draws from, and put back all global generators, which the Trainer seeds for itself, as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the library's, not ours)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def load_with_lora(settings: Settings, found: Machine) -> tuple[Any, Any]:
    """The frozen base with a fresh LoRA on it, and its tokenizer, which has a padding token.

    Raises:
        InputError: the base cannot be loaded, or has none of the target modules.
    """
    base, tokenizer = load_base(settings.model_name_or_path, found.four_bit, found.dtype, found.device)
    padding(tokenizer)
    if found.four_bit:
        from peft import prepare_model_for_kbit_training

        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)  # the Trainer does that
    model = with_lora(base, settings)
    if settings.gradient_checkpointing:
        model.enable_input_require_grads()
    return model, tokenizer


def padding(tokenizer: Any) -> None:
    """Give ``tokenizer`` a padding token if it has none; its vocabulary stays as it is.

    Raises:
        InputError: it has no end-of-sequence token either.
    """
    add_markers(tokenizer, mode="existing")


def with_lora(base: Any, settings: Settings) -> Any:
    """``base`` with a fresh LoRA, whose first weights the seed draws.

    Raises:
        InputError: the base has none of the target modules.
    """
    from peft import LoraConfig, get_peft_model

    wanted = settings.target_modules
    alpha = settings.adapter_alpha
    config = LoraConfig(
        r=settings.adapter_r,
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,  # type: ignore[arg-type]
        lora_dropout=settings.adapter_dropout,
        target_modules="all-linear" if wanted == ("all-linear",) else list(wanted),
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        with seeded(settings.seed):
            return get_peft_model(base, config)
    except ValueError as error:
        linear = sorted({n.rpartition(".")[2] for n, m in base.named_modules() if isinstance(m, torch.nn.Linear)})
        raise InputError(
            f"--target-modules {' '.join(wanted)}: {str(error).splitlines()[0]} This base has {', '.join(linear)}"
        ) from error


def planned_steps(settings: Settings, rows: int) -> int:
    """Optimizer steps of the whole run; the last of an epoch may be a smaller one."""
    if settings.max_steps is not None:
        return settings.max_steps
    batches = math.ceil(rows / settings.train_batch_size)
    return math.ceil(settings.epochs * math.ceil(batches / settings.gradient_accumulation))


def fit(
    model: Any, tokenizer: Any, data: TokenRows, settings: Settings, found: Machine, checkpoints: Path,
    start: Path | None, console: Console,
) -> list[float]:  # fmt: skip
    """Train; returns the loss of every step, those of an earlier run that is continued first.

    Args:
        model: from `load_with_lora`.
        tokenizer: its own.
        data: rows.
        settings: of the run.
        found: where it computes.
        checkpoints: folder for them.
        start: checkpoint to continue from.
        console: where to print.

    Raises:
        FloatingPointError: a loss is not finite; says from where to go on.
    """
    steps = planned_steps(settings, len(data))
    done = 0 if start is None else int(start.name.rpartition("-")[2])
    with TrainingLog(console, steps, done, every=max(1, steps // 20)) as log, seeded(settings.seed):
        teller = _Teller(log, checkpoints)
        trainer = Trainer(
            model=model,
            args=_arguments(settings, found, checkpoints, steps),
            train_dataset=data,
            data_collator=Padded(tokenizer.pad_token_id),
            callbacks=[teller],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _arguments(settings: Settings, found: Machine, checkpoints: Path, steps: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler,
        warmup_steps=int(settings.warmup_ratio * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch",
        bf16=found.precision == "bf16",
        fp16=found.precision == "fp16",
        activation_checkpointing=settings.gradient_checkpointing or None,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        seed=settings.seed,
        data_seed=settings.seed,
        save_strategy="steps" if settings.save_steps else "epoch",
        save_steps=settings.save_steps or 500,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would show the last good loss in place of one that is not finite
        report_to="none",
        disable_tqdm=True,
        use_cpu=found.device == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )


class _Teller(TrainerCallback):
    """Shows each step, and stops where a loss is not finite."""

    def __init__(self, log: TrainingLog, checkpoints: Path) -> None:
        self._log, self._checkpoints = log, checkpoints

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """A step is done."""
        if logs is None or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {state.global_step}; give a smaller --learning-rate and another --output-dir "
                f"(checkpoints of this run are in {self._checkpoints})"
            )
        norm = float(logs.get("grad_norm", 0.0))
        self._log(StepReport(state.global_step, loss, 0.0, 0.0, float(logs["learning_rate"]), norm))
