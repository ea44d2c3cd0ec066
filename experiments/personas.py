"""Personas: counterparts with a style, an adapter for each, and what it predicts of games that it never saw.

    python -m experiments.personas make --out runs/personas --personas 200 --games 50 --seed 0
    python -m experiments.personas train runs/personas --threads 2
    python -m experiments.personas eval runs/personas
    python -m experiments.personas hypernetwork runs/personas
    python -m experiments.personas route runs/personas

A persona is a strategy with drawn parameters, a preset and a seat. Its adapter predicts what it will do next, from what the
counterpart opposite may know: the offers, the clock and the public range. Its limit stands in no prompt.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import shlex
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.markdown import Markdown

from bargain_env import PRESETS
from bargain_env.errors import InputError, unknown
from bargain_env.files import locked, replacing
from experiments import cli
from experiments.match.specs import split
from experiments.persona import evaluating, instant, training
from experiments.persona.arms import Arms
from experiments.persona.cast import sample_personas, training_families
from experiments.persona.folder import HYPERLORA, PER_USER, POOLED, TRAINED, read_data, write_data
from experiments.persona.games import play_games, public_limits, require_decisions, split_of, split_sizes
from experiments.persona.generating import Hypernetwork
from experiments.persona.report import report
from experiments.persona.route_command import Route, route
from experiments.stages import claim, require_least
from hyperlora.adapters.many import LoRAPlan
from hyperlora.base import NANO, load_base
from hyperlora.decode.modes import Mode
from hyperlora.prompt import SEATED, markers

REPORT = "report.md"
LOCK = ".working"


@dataclass(frozen=True, slots=True)
class Make:
    """Draw personas, let them play, and split their games."""

    out: Path = Path("runs/personas")
    """Folder to write to: personas.json, steps.parquet, splits.json."""
    personas: int = 200
    """How many."""
    games: int = 50
    """Games of each; 60 % train, 20 % validate and 20 % test."""
    seed: int = 0
    """Of parameters, games, counterparts and splits. With the other settings it determines every byte."""
    families: str = "train"
    """Families of strategies, a comma list; ``train`` is all that are not held out."""
    scenario: str = "paper,hidden,no_deal"
    """Presets that personas play on, a comma list."""
    limit: Literal["public", "own"] = "public"
    """What prompts show as the persona's limit: the worst end of the public range, which is all that its counterpart knows,
    or its own."""
    unseen: float = 0.2
    """Share of the personas that is marked unseen, for whatever learns to make adapters."""
    max_turns: int = 20
    """Moves of both seats together."""
    quiet: bool = False
    """Print nothing."""
    json: bool = False
    """Print what was made as JSON instead of text."""


@dataclass(frozen=True, slots=True)
class Train:
    """Train an adapter for every persona, one for all, and a HyperLoRA gated by each persona's mean settlement."""

    data: tyro.conf.Positional[Path]
    """Folder of ``make``. Adapters that are in it stay: the same command continues."""
    model_name: str = NANO
    """The frozen base that all share: janus-nano, a folder, a .gguf file or a hub id."""
    prompt_format: int = SEATED
    """Of the prompts, see hyperlora.prompt; 4 is what the shipped base reads."""
    rank: int = 8
    """r of each adapter."""
    alpha: float = 16.0
    """Its α."""
    dropout: float = 0.05
    """On what an adapter sees."""
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    """Suffixes of the layers that are adapted."""
    lr: float = 5e-4
    """Peak learning rate."""
    epochs: int = 5
    """Passes over a persona's training games; the best on its validation games is kept."""
    weight_decay: float = 0.01
    """Of AdamW."""
    warmup_steps: int = 10
    """Linear warm-up."""
    batch_size: int = 8
    """Rows a step of each persona's adapter."""
    together: int = 10
    """Personas that train at once, each as if alone; it changes the rounding, and how fast it goes."""
    start: training.Start = "pooled"
    """What a persona's adapter starts from: ``pooled`` is the adapter for all, so that it learns only what sets its persona
    apart; ``base`` knows nobody."""
    pooled_epochs: int = 2
    """Passes of the adapter for all and of the HyperLoRA; 0 for neither, which needs --start base."""
    pooled_batch_size: int = 32
    """Rows a step of these two."""
    seed: int = 0
    """Of initial weights, row orders and dropout."""
    threads: int = 2
    """CPU threads."""
    quiet: bool = False
    """Print nothing."""
    json: bool = False
    """Print what was trained as JSON instead of text."""


@dataclass(frozen=True, slots=True)
class Eval:
    """Compare the adapters with the bare base on test games."""

    data: tyro.conf.Positional[Path]
    """Folder of ``make`` that ``train`` has been through."""
    out: Path | None = None
    """Where results go; DATA by default."""
    decode: str = "greedy"
    """How answers are read off probabilities: ``greedy`` takes the likeliest text; ``median`` and ``mean`` accept where
    P(ACCEPT) among legal answers is at least a half, and offer the median or mean of the prices."""
    games_curve: str = "5,10,20,30"
    """Numbers of training games to train on anew, a comma list; empty for none. Those beyond what there is are left out."""
    curve_personas: int = 20
    """Personas of that curve."""
    seed: int = 0
    """Of the intervals."""
    threads: int = 2
    """CPU threads."""
    quiet: bool = False
    """Print nothing."""
    json: bool = False
    """Print the overall figures as JSON instead of text."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Personas: counterparts with a style, an adapter for each, and what it predicts."""

    command: Annotated[
        Annotated[Make, tyro.conf.subcommand("make")]
        | Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Eval, tyro.conf.subcommand("eval")]
        | Annotated[Hypernetwork, tyro.conf.subcommand("hypernetwork")]
        | Annotated[Route, tyro.conf.subcommand("route")],
        tyro.conf.arg(name=""),
        tyro.conf.OmitSubcommandPrefixes,
        tyro.conf.OmitArgPrefixes,
    ]


def run(settings: Settings) -> dict[str, Any]:
    """Do what was asked for; returns what ``--json`` prints.

    Raises:
        InputError: a setting is out of range, or files are missing, damaged or of another run.
    """
    command = settings.command
    if isinstance(command, Make):
        done = make(command)
    else:
        torch.set_num_threads(_at_least_one(command.threads))
        match command:
            case Train():
                done = train(command)
            case Eval():
                done = evaluate(command)
            case Route():
                done = route(command)
            case Hypernetwork():
                done = teach_hypernetwork(command)
    if command.json:
        print(json.dumps(done))
    return done


def _at_least_one(threads: int) -> int:
    if threads < 1:
        raise InputError(f"--threads {threads} must be at least 1")
    return threads


def make(settings: Make) -> dict[str, Any]:
    """Draw, play, split, write.

    Raises:
        InputError: as `run`.
    """
    require_least(settings, {"personas": 1, "games": 1, "seed": 0, "max_turns": 1})
    if settings.seed >= 2**53 - 2_000_000:
        raise InputError(f"--seed {settings.seed} must be below 2**53 - 2,000,000")
    if not 0.0 <= settings.unseen < 1.0:
        raise InputError(f"--unseen {settings.unseen} must lie in [0, 1)")
    presets = split(settings.scenario, "--scenario")
    for name in presets:
        if name not in PRESETS:
            raise unknown("scenario", name, PRESETS)
    families = training_families() if settings.families == "train" else split(settings.families, "--families")
    console, out = cli.console(settings.quiet or settings.json), cli.output_folder(settings.out)
    if (out / PER_USER).exists() or (out / POOLED).exists() or (out / HYPERLORA).exists():
        raise InputError(
            f"{out} holds adapters of earlier personas, which would not fit new ones; choose another --out"
        )
    personas = sample_personas(settings.personas, settings.seed, families, presets, settings.unseen)
    table = play_games(personas, settings.games, settings.seed, settings.max_turns)
    require_decisions(personas, table)
    if settings.limit == "public":
        table = public_limits(table)
    about = {"personas": settings.personas, "games": settings.games, "seed": settings.seed, "families": families,
             "scenario": presets, "limit": settings.limit, "unseen": settings.unseen,
             "max_turns": settings.max_turns}  # fmt: skip
    with locked(out / LOCK, _busy(out)):
        write_data(out, personas, table, split_of(len(personas), settings.games, settings.seed), about)
    unseen = sum(persona.unseen for persona in personas)
    console.print(
        f"{len(personas)} personas of {len(families)} families, {unseen} of them unseen; "
        f"{settings.personas * settings.games:,} games, {table.num_rows:,} decisions"
    )
    console.print(f"wrote {out}: personas.json, steps.parquet, splits.json", soft_wrap=True)
    console.print(f"next: python -m experiments.personas train {out}", soft_wrap=True)
    return {**about, "decisions": table.num_rows, "out": str(out)}


def _busy(folder: Path) -> str:
    return f"another process works in {folder}; wait for it, or choose another folder"


def plan_of(settings: Train) -> LoRAPlan:
    """How each persona's adapter is trained."""
    return LoRAPlan(
        rank=settings.rank, alpha=settings.alpha, dropout=settings.dropout, lr=settings.lr, epochs=settings.epochs,
        weight_decay=settings.weight_decay, warmup_steps=settings.warmup_steps, batch_size=settings.batch_size,
        target_modules=tuple(settings.target_modules), seed=settings.seed,
    )  # fmt: skip


def train(settings: Train) -> dict[str, Any]:
    """Train what is not there yet.

    Raises:
        InputError: as `run`.
        KeyboardInterrupt: as it came, with a message that says how to continue.
    """
    require_least(settings, {"together": 1, "pooled_epochs": 0, "pooled_batch_size": 1})
    if settings.start == "pooled" and not settings.pooled_epochs:
        raise InputError("--start pooled needs the adapter for all; give --pooled-epochs at least 1, or --start base")
    markers(settings.prompt_format)
    plan, data = plan_of(settings), read_data(settings.data)
    console = cli.console(settings.quiet or settings.json)
    tell = lambda text: console.print(text, soft_wrap=True)  # noqa: E731
    with locked(settings.data / LOCK, _busy(settings.data)):
        claim(settings.data / TRAINED, _identity(settings, data.digest))
        try:
            done: dict[str, Any] = {}
            if settings.pooled_epochs:  # first, as the others may start from it
                pooled = training.pooled_plan(plan, settings.pooled_epochs, settings.pooled_batch_size)
                for name, work in ((POOLED, training.train_pooled), (HYPERLORA, training.train_gated)):
                    done[name] = work(data, settings.model_name, settings.prompt_format, pooled, tell)
            done["personas"] = training.train_personas(
                data, settings.model_name, settings.prompt_format, plan, settings.together, settings.start, tell
            )
        except KeyboardInterrupt:
            command = shlex.join(["python", "-m", "experiments.personas", *sys.argv[1:]])
            raise KeyboardInterrupt(f"interrupted; finished adapters are kept, continue with: {command}") from None
    storage = training.stored_bytes([training.adapter_folder(data, k) for k in range(len(data.personas))])
    made = done["personas"]
    if made["trained"]:
        console.print(f"{made['trained']} adapters in {made['seconds']:,.0f} s, {made['steps']:,} steps")
    console.print(
        f"{storage['weights']:,.0f} bytes of weights an adapter, {storage['folder']:,.0f} with its other files"
    )
    console.print(f"wrote {settings.data / PER_USER}" + (f", {POOLED}, {HYPERLORA}" if settings.pooled_epochs else ""))
    console.print(f"next: python -m experiments.personas eval {settings.data}", soft_wrap=True)
    return {**done, "storage": storage}


FREE = ("data", "threads", "quiet", "json")
"""Settings of training that change no more than the order of sums. That moves losses in their last bits, which may tip which
epoch is best where two are as good, and so which weights are kept."""


def _identity(settings: Train, digest: str) -> dict[str, Any]:
    """What adapters in one folder have in common."""
    chosen = {name: getattr(settings, name) for name in settings.__dataclass_fields__ if name not in FREE}
    model, _ = load_base(settings.model_name)
    chosen["target_modules"] = list(settings.target_modules)
    return {**chosen, "base_digest": model.base_digest, "data_sha256": digest}


def evaluate(settings: Eval) -> dict[str, Any]:
    """Ask every arm, and write what came of it.

    Raises:
        InputError: as `run`.
    """
    require_least(settings, {"curve_personas": 1, "seed": 0})
    if Mode.parse(settings.decode).draws or settings.decode == "free":
        raise InputError(
            f"--decode {settings.decode} draws or writes freely; choose median, mean, greedy or quantile:Q"
        )
    data = read_data(settings.data)
    trained = _trained(settings.data, data.digest)
    console = cli.console(settings.quiet or settings.json)
    out = cli.output_folder(settings.out or settings.data)
    arms = Arms(data, trained.model_name, trained.prompt_format, settings.decode)
    found = evaluating.evaluate(
        arms, _curve(settings, data.settings["games"]), settings.curve_personas, plan_of(trained), trained.start,
        settings.seed, lambda text: console.print(text, soft_wrap=True),
    )  # fmt: skip
    rows = evaluating.summary_rows(found)
    files = evaluating.write_results(found, rows, arms, out)
    text = report(found, rows)
    with replacing(out / REPORT) as temporary:
        temporary.write_text(text, encoding="utf-8")
    console.print(Markdown(text))
    console.print("wrote " + ", ".join(str(path) for path in [*files, out / REPORT]), soft_wrap=True)
    overall = json.loads((out / evaluating.RESULTS_FILE).read_text())["overall"]
    return {"overall": overall, "files": [str(path) for path in [*files, out / REPORT]]}


def teach_hypernetwork(settings: Hypernetwork) -> dict[str, Any]:
    """Train a hypernetwork on seen personas, and judge it on unseen ones.

    Raises:
        InputError: as `run`.
    """
    settings.check()
    data = read_data(settings.data)
    trained = _trained(settings.data, data.digest)
    console, out = cli.console(settings.quiet or settings.json), cli.output_folder(settings.out or settings.data)
    arms, plan = Arms(data, trained.model_name, trained.prompt_format), plan_of(trained)
    pooled = training.pooled_plan(plan, max(trained.pooled_epochs, 1), trained.pooled_batch_size)
    with locked(out / LOCK, _busy(out)):
        results = instant.run(data, arms, plan, pooled, settings, out, lambda text: console.print(text, soft_wrap=True))
    console.print(Markdown(instant.table(results)))
    files = [out / name for name in (instant.FOLDER, instant.SEEN_POOLED, instant.EXPERTS, instant.RESULTS)]
    console.print("wrote " + ", ".join(map(str, files)), soft_wrap=True)
    return results


def _trained(folder: Path, digest: str) -> Train:
    """The settings that the adapters of a folder were trained with."""
    path = folder / TRAINED
    if not path.is_file():
        raise InputError(f"{folder} holds no adapters; run `python -m experiments.personas train {folder}` first")
    about = json.loads(path.read_text())
    if about["data_sha256"] != digest:
        raise InputError(f"adapters in {folder} were trained on other games than lie there; train in a new folder")
    chosen = {name: about.get(name) for name in Train.__dataclass_fields__ if name not in FREE}
    unsaid = [name for name in chosen if name not in about]
    if unsaid:
        raise InputError(f"{path} does not say {unsaid[0]}: another version trained there; train in a new folder")
    return Train(**{**chosen, "data": folder, "target_modules": tuple(about["target_modules"])})


def _curve(settings: Eval, games: int) -> list[int]:
    """Numbers of training games for the curve, none of them beyond what there is."""
    if not settings.games_curve.strip():
        return []
    words = split(settings.games_curve, "--games-curve")
    if not all(word.isdecimal() and int(word) >= 1 for word in words):
        raise InputError(f"--games-curve {settings.games_curve!r} is not a comma list of numbers of games from 1")
    most = split_sizes(games)[0]
    return sorted({int(word) for word in words if int(word) <= most})


if __name__ == "__main__":
    from experiments import personas

    cli.main(personas.Settings, personas.run)
