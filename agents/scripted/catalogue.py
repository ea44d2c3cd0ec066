"""The list of scripted strategies, in the order in which they are registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bargain_env import Policy

from ..registry import register
from .charging import ChargingBoul
from .micro import Micro
from .reactive import SplitDifference, TitForTat
from .simple import NaiveConcession, RandomZopa
from .time_dependent import Boulware, Fair, Hardliner, NaiveBoulware, NoisyBoulware

FARATIN = "Faratin, Sierra, Jennings 1998, Robotics and Autonomous Systems 24(3-4):159-182"
MICRO = "de Jonge 2022, IJCAI, pp. 223-229"
CHARGING = "Shymanski 2025, arXiv:2512.06595 (ANAC 2022)"
JANUS = "github.com/zacharytgray/Single-Price-Point-Negotiation-Domain, 2026"


class Family(NamedTuple):
    """What the members of a family have in common; see `agents.StrategyInfo`."""

    name: str
    factory: Callable[..., Policy]
    source: str
    stochastic: bool = False
    uses_history: bool = False
    evaluable: bool = True


class Entry(NamedTuple):
    """One strategy."""

    name: str
    family: Family
    description: str
    defaults: dict[str, Any]


BOULWARE = Family("boulware", Boulware, FARATIN)
NOISY = Family("noisy_boulware", NoisyBoulware, FARATIN, stochastic=True)
TIT_FOR_TAT = Family("tit_for_tat", TitForTat, FARATIN, uses_history=True)
SPLIT = Family("split_difference", SplitDifference, JANUS, uses_history=True)
HARDLINER = Family("hardliner", Hardliner, JANUS)
RANDOM = Family("random_zopa", RandomZopa, JANUS, stochastic=True, evaluable=False)
MICRO_GRID = Family("micro", Micro, MICRO, stochastic=True, uses_history=True)
CHARGING_BOUL = Family("charging_boul", ChargingBoul, CHARGING, stochastic=True, uses_history=True)
FAIR = Family("fair", Fair, JANUS)
NAIVE_CONCESSION = Family("naive_concession", NaiveConcession, JANUS, stochastic=True)
NAIVE_BOULWARE = Family("naive_boulware", NaiveBoulware, JANUS)

CATALOGUE: tuple[Entry, ...] = (
    Entry("boulware_very_conceding", BOULWARE, "gives most of its room on the first turns", {"beta": 0.2}),
    Entry("boulware_conceding", BOULWARE, "concedes early", {"beta": 0.5}),
    Entry("linear_standard", BOULWARE, "concedes evenly over time", {"beta": 1.0}),
    Entry("boulware_firm", BOULWARE, "concedes late", {"beta": 2.0}),
    Entry("boulware_hard", BOULWARE, "concedes on the last turns", {"beta": 4.0}),
    Entry("noisy_boulware_conceding", NOISY, "boulware_conceding with shaken offers", {"beta": 0.5}),
    Entry("noisy_boulware_firm", NOISY, "boulware_firm with shaken offers", {"beta": 2.0}),
    Entry("noisy_boulware_hard", NOISY, "boulware_hard with shaken offers", {"beta": 4.0}),
    Entry("tit_for_tat", TIT_FOR_TAT, "concedes as much as the opponent just did", {}),
    Entry("split_difference", SPLIT, "offers the middle of its last offer and the standing one", {}),
    Entry("hardliner", HARDLINER, "does not move until the last two turns", {"cave_in_margin": 5.0}),
    Entry("random_zopa", RANDOM, "offers and accepts at random; for training data", {"acceptance": 0.3}),
    Entry("micro_fine", MICRO_GRID, "one small step for each new offer", {"step": 10.0}),
    Entry("micro_moderate", MICRO_GRID, "one medium step for each new offer", {"step": 25.0}),
    Entry("micro_coarse", MICRO_GRID, "one large step for each new offer", {"step": 50.0}),
    Entry("charging_boul", CHARGING_BOUL, "reads the opponent, then firm or yielding", {"floor": 0.5, "exponent": 0.4}),
    Entry("charging_boul_aggressive", CHARGING_BOUL, "charging_boul, firmer", {"floor": 0.6, "exponent": 0.2}),
    Entry("charging_boul_patient", CHARGING_BOUL, "charging_boul, conceding sooner", {"floor": 0.5, "exponent": 0.8}),
    Entry("fair", FAIR, "approaches the middle of the assumed ZOPA, accepts it", {"opening": 0.8}),
    Entry("fair_fast", FAIR, "offers the middle of the assumed ZOPA at once", {"opening": 1.0}),
    Entry("fair_slow", FAIR, "approaches the middle from further away", {"opening": 0.4}),
    Entry("naive_concession", NAIVE_CONCESSION, "offers near its reservation, accepts anything up to it", {}),
    Entry("naive_boulware", NAIVE_BOULWARE, "opens at its reservation and walks away from it", {"beta": 3.0}),
)

for _name, _family, _description, _defaults in CATALOGUE:
    register(
        _name,
        _family.factory,
        family=_family.name,
        description=_description,
        defaults=_defaults,
        source=_family.source,
        stochastic=_family.stochastic,
        uses_history=_family.uses_history,
        evaluable=_family.evaluable,
    )
