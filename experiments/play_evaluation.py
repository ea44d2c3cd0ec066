"""Play evaluation: the model as it is now at the table, requested ρ against achieved ρ, small enough to run in training.

It is a small tournament, and the tournament's code plays it. Two things keep it apart: it meets strategies of the train
split only, since what steers a training run must not be what measures it afterwards; and its scenarios are those of a
seed that no tournament uses by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import agents
from bargain_env import PRESETS, Policy, Preset, Seat
from bargain_env.errors import InputError, unknown
from experiments.match.arena import Plan, run_tournament, same_grid
from experiments.match.contestants import Contestant
from experiments.reporting import statistics
from experiments.reporting.summary import clean
from hyperlora.checkpoint import Adapter
from hyperlora.evaluate import evaluation_mode

Floats = NDArray[np.float64]

RHOS = (0.1, 0.3, 0.5, 0.7, 0.9)
OPPONENTS = ("boulware_firm", "linear_standard", "tit_for_tat")
SEED = 20_011
"""Not 0, the default of tournaments, whose games should be new to a finished adapter."""


def evaluate_play(
    model: Any,
    tokenizer: Any,
    config: dict[str, Any],
    *,
    rhos: Sequence[float] = RHOS,
    opponents: Sequence[str] = OPPONENTS,
    games: int = 8,
    scenario: str = "paper",
    seed: int = SEED,
    decode: str = "median",
    guard: str = "monotone",
    batch_size: int = 256,
) -> dict[str, Any]:
    """Play the live ``model`` from both seats, at each ρ, against each opponent, in the same scenarios.

    Args:
        model: causal LM with or without a HyperLoRA; its modes and its bound ρ are left as found.
        tokenizer: its tokenizer, with the markers.
        config: of the adapter; ``k_history`` and ``prompt_format`` are read.
        rhos: requests, each in [0, 1] or -1; a repeated one counts once.
        opponents: strategies of the train split.
        games: scenarios; each is one game of every seat, ρ and opponent.
        scenario: preset that they are drawn from.
        seed: of the scenarios and of the opponents' luck.
        decode: see `agents.JanusAgent`.
        guard: see there.
        batch_size: prompts a forward pass.

    Returns:
        JSON-ready. ``scenario``, ``seed``, ``scenarios`` and ``opponents`` say what was played; ``buyer`` and ``seller``
        hold the figures of `_seat_figures`, None where there are no deals to take them from. The same model and arguments
        give the same figures, on the same number of threads.

    Raises:
        InputError: a held-out, cheating or unknown opponent, an unknown scenario, or a value out of its range.
    """
    requests = tuple(dict.fromkeys(float(rho) + 0.0 for rho in rhos))
    names = tuple(dict.fromkeys(opponents))
    _check(requests, names, scenario)
    plan = Plan(names, same_grid(requests), games, tuple(Seat), PRESETS[scenario], seed)
    adapter = Adapter(model, tokenizer, config)

    def build(rho: Floats | None, preset: Preset) -> Policy:
        assert rho is not None  # what `takes_rho` means
        policy: Policy = agents.JanusAgent(
            adapter, rho, decode=decode, guard=guard, batch_size=batch_size, raw_dial=True
        )  # what is trained is what the map will be fitted to
        return policy

    with evaluation_mode(model):
        episodes = run_tournament([Contestant("live", takes_rho=True, build=build)], plan)
    seats = {seat.label: _seat_figures(episodes.filter(pc.equal(episodes["agent_seat"], seat.label))) for seat in Seat}
    played = {"scenario": scenario, "seed": seed, "scenarios": games, "opponents": list(names)}
    summary: dict[str, Any] = clean({**played, **seats})
    return summary


def _check(requests: tuple[float, ...], names: tuple[str, ...], scenario: str) -> None:
    if not requests or not names:
        raise InputError("a play evaluation needs at least one rho and one opponent; name some, or leave it out")
    if scenario not in PRESETS:
        raise unknown("scenario", scenario, PRESETS)
    for name in names:
        info = agents.describe(name)
        if info.split != "train" or info.cheating:
            what = "cheats" if info.cheating else f"is of the {info.split} split"
            raise InputError(
                f"opponent {name!r} {what} and may not steer training; choose strategies of the train split "
                f"(python -m experiments.strategies list)"
            )


def _seat_figures(rows: pa.Table) -> dict[str, Any]:
    """Figures of one seat's episodes, named as `experiments.reporting.calibration` names them; NaN without deals.

    Returns:
        Over all its games: ``games``, ``deals`` (that settled at some ρ), ``agreement_rate``, ``utility`` (mean, 0 at an
        impasse), ``guard_moves`` and ``invalid_moves`` (counts). Over its deals, those of requests in [0, 1]: ``mae`` of
        achieved against requested ρ, ``slope`` and ``intercept`` of the line through them, ``spearman_games``, and
        ``spearman`` of requests and mean achieved ρ. And ``by_rho``: for each request ``rho``, ``games``, ``deals``,
        ``achieved`` (mean ρ over deals), ``agreement_rate`` and ``utility``.
    """
    requested, achieved, utility, agreed = (
        rows[name].to_numpy().astype(np.float64) for name in ("rho_requested", "rho_achieved", "utility", "agreement")
    )
    settled = ~np.isnan(achieved)
    fit = settled & (requested >= 0)
    asked, got = requested[fit], achieved[fit]
    slope, intercept = _line(asked, got)
    by_rho = [
        {
            "rho": rho,
            "games": int(here.sum()),
            "deals": int((here & settled).sum()),
            "achieved": _mean(achieved[here & settled]),
            "agreement_rate": _mean(agreed[here]),
            "utility": _mean(utility[here]),
        }
        for rho, here in ((rho, requested == rho) for rho in np.unique(requested))
    ]
    ladder = [(row["rho"], row["achieved"]) for row in by_rho if row["deals"] and row["rho"] >= 0]
    return {
        "games": len(rows),
        "deals": int(settled.sum()),
        "agreement_rate": _mean(agreed),
        "utility": _mean(utility),
        "guard_moves": int(rows["guard_moves"].to_numpy().sum()),
        "invalid_moves": int(rows["invalid_moves"].to_numpy().sum()),
        "mae": _mean(np.abs(got - asked)),
        "slope": slope,
        "intercept": intercept,
        "spearman": statistics.spearman(*zip(*ladder, strict=True)) if ladder else np.nan,
        "spearman_games": statistics.spearman(asked, got),
        "by_rho": by_rho,
    }


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else np.nan


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Slope and intercept of the least-squares line; NaN where all ``x`` are the same."""
    if len(x) < 2 or np.ptp(x) == 0:
        return np.nan, np.nan
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept)
