"""Inspect a data set: a data card in the terminal and as one HTML file, with checks for leaks.

    python -m experiments.inspect data/ready

DATA is a folder of experiments.collect or experiments.prepare. The card counts games, decisions, labels, strategies and
pairs, and asks whether the data tell what they should not: the other side's reservation before anybody has spoken, the
label from the order of the rows, training games among those that measure. Each check has a verdict: ok, note or leak.

Tables are read a batch at a time; models are fitted to a sample of games. Gradient boosting needs scikit-learn:
``pip install 'bargain-lab[inspect]'``; without it the checks rest on least squares, and say so.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from dataclasses import dataclass
from typing import Any

import tyro

from bargain_env.errors import InputError
from bargain_env.files import replacing
from experiments import cli
from experiments.inspecting import html, source, terminal
from experiments.inspecting.card import Options, card

CARD = "card.html"
_FEWEST = 250
"""Games that a sample must hold, so that models can be fitted and measured."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Inspect a data set: a data card in the terminal and as one HTML file, with checks for leaks."""

    data: tyro.conf.Positional[Path]
    """Folder of experiments.collect or experiments.prepare."""
    out: Path | None = None
    """HTML file to write; DATA/card.html by default."""
    sample: int = 10_000
    """Games that models are fitted to, about."""
    seed: int = 0
    """Draws the sample, splits it, and resamples it for the intervals."""
    verify: bool = True
    """Compare the files with the checksums of the manifest."""
    quiet: bool = False
    """Print nothing."""
    json: bool = False
    """Print the numbers as JSON instead of text."""


def run(settings: Settings) -> dict[str, Any]:
    """Inspect; returns the card.

    Raises:
        InputError: a setting is out of range, there is no data set, or the page cannot be written.
    """
    if settings.sample < _FEWEST:
        raise InputError(f"--sample {settings.sample} must be at least {_FEWEST}")
    if not 0 <= settings.seed < 2**53:
        raise InputError(f"--seed {settings.seed} must lie in [0, 2**53)")
    out = settings.data / CARD if settings.out is None else settings.out
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name the file that the card shall be")
    found = source.located(settings.data)
    cli.output_folder(out.parent)
    console = cli.console(settings.quiet or settings.json)
    options = Options(sample=settings.sample, seed=settings.seed, verify=settings.verify)
    made = card(found, options, console.out)
    with replacing(out) as temporary:
        temporary.write_text(html.render(made), encoding="utf-8")
    if settings.json:
        print(json.dumps(made))
    terminal.print_card(made, console)
    console.print(f"wrote {out}", soft_wrap=True, markup=False)
    return made


if __name__ == "__main__":
    cli.main(Settings, run)
