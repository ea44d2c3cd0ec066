"""The published evaluation of the original Janus, as settings of a tournament.

Source: its benchmark script (github.com/zacharytgray/Single-Price-Point-Negotiation-Domain at c7b3a97,
``run_full_janus_benchmark.py``) and the published figures. What is reproduced: BuyerMax ~ N(900, 50) with a ZOPA of 500 that
every script is told, 20 turns, 50 games a matchup with seats and starters in turn, 22 scripts, four settings of the dial and
the base model. What differs, on purpose:

- Scenarios and luck are the same for every configuration and opponent, and follow from the seed; there they were drawn anew,
  without a seed.
- ``charging_boul`` starts every game with a clean memory; there it kept one for the whole process, shared by its variants.
- Nobody can accept their own standing offer, and an answer that is no move does not leave it for the opponent to take.
- ``base`` is ρ-blind play of this project's base, asked at ρ 0.5; there it was an instruction-tuned model by prompt.
- Janus decodes among legal answers and keeps to its limit (``--decode``, ``--guard`` are the user's); there answers were
  sampled, and deals beyond its limit happened: the published mean utility of ``flipped`` is negative. ``--guard none``
  lets them happen here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bargain_env.errors import InputError

from .arms import janus_spec
from .configs import KNOWN
from .contestants import Contestant, unasked
from .specs import split

GAMES = 25
"""Scenarios; from both seats they are the 50 games of a matchup, of which the buyer starts 26."""
BASE_RHO = 0.5
"""What the prompt of the base says; published as not asked at all."""

OPPONENTS = (
    "boulware_very_conceding", "boulware_conceding", "linear_standard", "boulware_firm", "boulware_hard",
    "noisy_boulware_conceding", "noisy_boulware_firm", "noisy_boulware_hard", "tit_for_tat", "split_difference",
    "hardliner", "micro_fine", "micro_moderate", "micro_coarse", "charging_boul", "charging_boul_aggressive",
    "charging_boul_patient", "fair", "fair_fast", "fair_slow", "naive_concession", "naive_boulware",
)  # fmt: skip
"""The published pool; ours have the same names. Its 23rd, ``random_zopa``, is left out there and here. Where rules differ:
docs/evaluation.md."""


@dataclass(frozen=True, slots=True)
class Published:
    """Figures of one configuration, in percent but for turns.

    Attributes:
        utility: mean of the own share of the ZOPA over agreements only.
        agreement: share of games that end in one.
        turns: mean over all games.
    """

    utility: float
    agreement: float
    turns: float


PUBLISHED: Mapping[str, Published] = {
    "base": Published(21.0, 84.7, 6.9),
    "standard": Published(55.3, 90.3, 14.8),
    "extreme": Published(44.7, 96.3, 12.4),
    "flipped": Published(-4.3, 97.0, 7.6),
    "neutral": Published(46.3, 98.8, 8.0),
}

FIXED: Mapping[str, Any] = {
    "rho": None,
    "config": tuple(KNOWN),
    "opponents": ",".join(OPPONENTS),
    "opponent_rho": None,
    "scenario": "paper",
    "seats": "both",
    "max_turns": 20,
}
"""Settings of `experiments.tournament` that the protocol decides."""


def applied(settings: Any) -> Any:
    """``settings`` of a tournament with those of the protocol, and the base of every Janus among the agents.

    Raises:
        InputError: one that the protocol fixes is set to something else, or no agent is a Janus with a dial.
    """
    default = type(settings)()
    for name, value in FIXED.items():
        if getattr(settings, name) not in (getattr(default, name), value):
            raise InputError(f"--protocol paper fixes --{name.replace('_', '-')}; leave it out")
    games = GAMES if settings.games is None else settings.games
    return replace(settings, agents=_with_bases(settings.agents), games=games, **FIXED)


def _with_bases(agents: str) -> str:
    specs = split(agents, "--agents")
    played = [found for found in map(janus_spec, specs) if found is not None and found.arm != "base"]
    if not played:
        raise InputError("--protocol paper needs a Janus in --agents, such as janus-nano; name one")
    bases = [f"base:{found.adapter}" if found.given else "base" for found in played]
    return ",".join(dict.fromkeys([*specs, *bases]))


def seated(players: Sequence[Contestant]) -> list[Contestant]:
    """The contestants, of which bases play a single pass, as published."""
    return [unasked(player, BASE_RHO) if player.arm == "base" else player for player in players]
