"""Re-create janus-nano from nothing: ``python -m experiments.pipeline --out DIR``.

Every stage is the command of the same name: teachers → episodes → checked tables → ρ-blind base → HyperLoRA → checkpoint →
a round of games of its own, answered by the teacher → calibrated dial → tournament (the seed's section 9 with a teacher and
a dial). A stage whose result is complete is skipped, so an interrupted run continues. The result, ``DIR/janus-nano``, holds
``base/`` and ``adapter/`` and plays as ``--agents janus:DIR/janus-nano``; the shipped weights are of its
defaults with ``--threads 1``.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import shutil
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from bargain_env import preset
from bargain_env.files import replacing, replacing_folder
from experiments import calibrate, cli, on_policy, pretrain, tournament, train
from experiments.corpus.teachers import require_share
from experiments.match.specs import split
from experiments.nano_card import nano_card
from experiments.stages import TEACHER, Data, Stage, adapter_settings, claim, require_least, run_stages
from hyperlora.checkpoint import CONFIG
from hyperlora.prompt import SEATED

SETTINGS, CALIBRATION = "pipeline.json", "calibration.json"
ROUND_LR = 1.5e-3
"""Peak learning rate where training goes on, half of that at first."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Re-create janus-nano from nothing."""

    out: Path
    """Folder for data, checkpoints, the model and its tournament."""
    seed: int = 0
    """Of the games, the initial weights and the training order."""
    scenario: str = "paper,hidden"
    """Where the training games come from: paper, hidden or no_deal, or several, a comma list."""
    episodes: int = 36_000
    """Training games."""
    teacher_share: float = 0.6
    """Chance of each of their seats to be played by a teacher; see `experiments.collect`."""
    teacher_rounds: int = 200
    """Rounds in which a teacher is trained (`experiments.teacher`), whose decisions the adapter learns as answers to what it
    was asked; 0 for scripted teachers, with outcomes for labels."""
    base_steps: int = 8_000
    """Optimizer steps of the base, on rho-blind play."""
    adapter_steps: int = 12_000
    """Optimizer steps of the adapter."""
    batch_size: int = 16
    """Rows a step, in both."""
    on_policy_rounds: int = 1
    """How often the adapter then plays, its teachers answer (`experiments.on_policy`) and it is trained on; 0 without
    trained teachers."""
    on_policy_games: int = 6000
    """Games of each scenario in such a round."""
    on_policy_steps: int = 6000
    """Optimizer steps in such a round."""
    calibration_games: int = 40
    """Scenarios of each preset that the dial is fitted on (`experiments.calibrate`); 0 for a raw dial."""
    games: int = 20
    """Games a cell of the closing tournament; 0 for none."""
    threads: int = 2
    """CPU threads; the weights depend on it in their last bits."""
    workers: int = 2
    """Processes that play the games of dial and tournament; nothing depends on it but the time."""
    quiet: bool = False
    """No output."""


def run(settings: Settings) -> Path:
    """Every stage in order; returns the folder of the model.

    Raises:
        InputError: the folder holds a run with other settings.
    """
    console = cli.console(settings.quiet)
    presets = _check(settings)
    out = cli.output_folder(settings.out)
    claim(out / SETTINGS, identity(settings))
    torch.set_num_threads(settings.threads)
    ready, model = out / "ready", out / "janus-nano"
    results = out / f"tournament-{settings.games}"
    data = Data(settings.seed, settings.scenario, settings.episodes, settings.teacher_share, settings.teacher_rounds,
                settings.threads, settings.quiet)  # fmt: skip
    adapter = adapter_settings(
        ready, out / "train", str(model / "base"), asked=data.asked, batch_size=settings.batch_size,
        steps=settings.adapter_steps, seed=settings.seed, quiet=settings.quiet,
    )  # fmt: skip
    rounds = settings.on_policy_rounds if data.asked else 0
    stages = [
        *data.stages(out),
        Stage("pretrain", model / "base" / "config.json", lambda: pretrain.run(
            pretrain.Settings(ready, model / "base", max_steps=settings.base_steps, batch_size=settings.batch_size,
                              prompt_format=SEATED, seed=settings.seed, quiet=settings.quiet))),
        Stage("train", out / "train" / "final" / CONFIG, lambda: train.run(adapter)),
        *(stage for k in range(rounds) for stage in _round(settings, adapter, out, k)),
        Stage("publish", model / "adapter" / CONFIG, lambda: publish(_trained(out, rounds), model, settings)),
        *([Stage("calibrate", out / CALIBRATION, lambda: _calibrate(settings, model, out))]
          if settings.calibration_games else []),
        Stage("tournament", results / "summary.json", lambda: tournament.run(
            tournament.Settings(f"janus:{model}", games=settings.games, scenario=presets[0],
                                out=results, threads=1, workers=settings.workers, quiet=settings.quiet))),
    ]  # fmt: skip
    run_stages(stages[: None if settings.games else -1], console)
    console.print(f"wrote {model}{f' and {results}' if settings.games else ''}", soft_wrap=True)
    console.print(
        f"next: python -m experiments.tournament --agents janus:{model},base:{model} --scenario {presets[0]}",
        soft_wrap=True,
    )
    return model


def identity(settings: Settings) -> dict[str, Any]:
    """The settings that the weights depend on, by name."""
    return {k: v for k, v in asdict(settings).items() if k not in ("out", "games", "workers", "quiet")}


def _check(settings: Settings) -> list[str]:
    """The presets."""
    least = {"seed": 0, "episodes": 1, "teacher_rounds": 0, "base_steps": 1, "adapter_steps": 1, "batch_size": 1,
             "on_policy_rounds": 0, "on_policy_games": 2, "on_policy_steps": 1, "calibration_games": 0, "games": 0,
             "threads": 1, "workers": 1}  # fmt: skip
    require_least(settings, least)
    require_share(settings.teacher_share)
    presets = split(settings.scenario, "--scenario")
    for name in presets:
        preset(name)
    return presets


def _round(settings: Settings, first: train.Settings, out: Path, index: int) -> list[Stage]:
    """Play, ask and train on: the data of a round are those of the one before and new ones."""
    before, here = _trained(out, index), out / f"round-{index + 1}"
    asked = on_policy.Settings(
        str(before), out / TEACHER, first.data if index == 0 else out / f"round-{index}" / "data", here / "data",
        settings.scenario, settings.on_policy_games, seed=settings.seed + index, threads=settings.threads,
        quiet=settings.quiet,
    )  # fmt: skip
    again = replace(
        first, data=here / "data", out=here, start=before, lr=ROUND_LR, warmup_steps=100, max_steps=settings.on_policy_steps,
        seed=settings.seed + 1 + index,
    )  # fmt: skip
    return [
        Stage(f"on-policy {index + 1}", here / "data" / "manifest.json", lambda: on_policy.run(asked)),
        Stage(f"train on {index + 1}", here / "final" / CONFIG, lambda: train.run(again)),
    ]


def _trained(out: Path, rounds: int) -> Path:
    """The adapter after so many rounds."""
    return (out / f"round-{rounds}" if rounds else out / "train") / "final"


def _calibrate(settings: Settings, model: Path, out: Path) -> None:
    """Fit the dial of the published adapter, and keep what was found beside it."""
    found = calibrate.run(
        calibrate.Settings(str(model), work=out / "calibration", rho="0:1:0.1", games=settings.calibration_games,
                           check_games=0, scenario=settings.scenario, threads=1, workers=settings.workers,
                           quiet=settings.quiet)
    )  # fmt: skip
    with replacing(out / CALIBRATION) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")


def publish(final: Path, model: Path, settings: Settings) -> None:
    """Put the adapter beside its base, naming it relatively, with a model card."""
    with replacing_folder(model / "adapter", CONFIG) as temporary:
        shutil.copytree(final, temporary, dirs_exist_ok=True)
        config = json.loads((temporary / CONFIG).read_text())
        config["base_model"] = config["run"]["model_name"] = "../base"
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        (temporary / "README.md").write_text(nano_card(identity(settings)))


if __name__ == "__main__":
    cli.main(Settings, run)
