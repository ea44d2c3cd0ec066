"""The list of scripted strategies, in the order in which they are registered."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..registry import register
from . import families as f
from .families import Family


class Entry(NamedTuple):
    """One strategy; see `agents.StrategyInfo`."""

    name: str
    family: Family
    description: str
    defaults: dict[str, Any]


TRAINED: tuple[Entry, ...] = (
    Entry("boulware_very_conceding", f.BOULWARE, "gives most of its room on the first turns", {"exponent": 0.2}),
    Entry("boulware_conceding", f.BOULWARE, "concedes early", {"exponent": 0.5}),
    Entry("linear_standard", f.BOULWARE, "concedes evenly over time", {"exponent": 1.0}),
    Entry("boulware_firm", f.BOULWARE, "concedes late", {"exponent": 2.0}),
    Entry("boulware_hard", f.BOULWARE, "concedes on the last turns", {"exponent": 4.0}),
    Entry("noisy_boulware_conceding", f.NOISY, "boulware_conceding with shaken offers", {"exponent": 0.5}),
    Entry("noisy_boulware_firm", f.NOISY, "boulware_firm with shaken offers", {"exponent": 2.0}),
    Entry("noisy_boulware_hard", f.NOISY, "boulware_hard with shaken offers", {"exponent": 4.0}),
    Entry("tit_for_tat", f.TIT_FOR_TAT, "concedes as much as the opponent just did", {}),
    Entry("split_difference", f.SPLIT, "offers the middle of its last offer and the standing one", {}),
    Entry("hardliner", f.HARDLINER, "does not move until the last two turns", {"cave_in_margin": 5.0}),
    Entry("random_zopa", f.RANDOM, "offers and accepts at random; for training data", {"acceptance": 0.3}),
    Entry("micro_fine", f.MICRO, "one small step for each new offer", {"step": 10.0}),
    Entry("micro_moderate", f.MICRO, "one medium step for each new offer", {"step": 25.0}),
    Entry("micro_coarse", f.MICRO, "one large step for each new offer", {"step": 50.0}),
    Entry("charging_boul", f.CHARGING, "reads the opponent, then firm or yielding", {"floor": 0.5, "exponent": 0.4}),
    Entry("charging_boul_aggressive", f.CHARGING, "charging_boul, firmer", {"floor": 0.6, "exponent": 0.2}),
    Entry("charging_boul_patient", f.CHARGING, "charging_boul, conceding sooner", {"floor": 0.5, "exponent": 0.8}),
    Entry("fair", f.FAIR, "approaches the middle of the assumed ZOPA, accepts it", {"opening": 0.8}),
    Entry("fair_fast", f.FAIR, "offers the middle of the assumed ZOPA at once", {"opening": 1.0}),
    Entry("fair_slow", f.FAIR, "approaches the middle from further away", {"opening": 0.4}),
    Entry("naive_concession", f.NAIVE, "offers near its reservation, accepts anything up to it", {}),
    Entry("naive_boulware", f.NAIVE_BOULWARE, "opens at its reservation and walks away from it", {"exponent": 3.0}),
)

HELD_OUT: tuple[Entry, ...] = (
    Entry("exponential_boulware", f.EXPONENTIAL, "opens with a tenth, concedes late", {"beta": 0.2, "kappa": 0.1}),
    Entry("exponential_even", f.EXPONENTIAL, "opens with a tenth, then by a factor", {"beta": 1.0, "kappa": 0.1}),
    Entry("exponential_conceder", f.EXPONENTIAL, "opens with a tenth, concedes early", {"beta": 5.0, "kappa": 0.1}),
    Entry("relative_tit_for_tat", f.RELATIVE, "changes its price by the opponent's last factor", {"lag": 1}),
    Entry("random_absolute_tit_for_tat", f.RANDOM_ABSOLUTE, "as the opponent did, and a bit", {"lag": 1, "extra": 10}),
    Entry("averaged_tit_for_tat", f.AVERAGED, "by the factor of the opponent's last three steps", {"window": 3}),
    Entry("resource_time", f.TIME_LEFT, "concedes as turns run out", {"patience": 1.0}),
    Entry("resource_thread", f.THREAD, "concedes as talk goes on", {"patience": 5.0}),
    Entry("mixture_weighted", f.WEIGHTED, "half tit_for_tat, half the clock, summed", {"weight": 0.5, "beta": 0.5}),
    Entry("mixture_single", f.SINGLE, "half tit_for_tat, half the clock, step by step", {"weight": 0.5, "beta": 0.5}),
    Entry("combi_max_window", f.COMBI, "boulware_hard, late taking the best of late", {"exponent": 4.0, "since": 0.8}),
    Entry("modelling_best_reply", f.BEST_REPLY, "infers limit and haste, waits for the best", {"path": 0.5}),
    Entry("modelling_counter", f.COUNTER, "recognises the family, answers with its own haste", {}),
    Entry("boulware_immovable", f.BOULWARE, "hardly concedes before the end", {"exponent": 8.0}),
    Entry("micro_giant", f.MICRO, "one giant step for each new offer", {"step": 100.0}),
    Entry("charging_boul_stubborn", f.CHARGING, "charging_boul, firmest", {"floor": 0.7, "exponent": 0.1}),
    Entry("fair_reluctant", f.FAIR, "approaches the middle from furthest away", {"opening": 0.1}),
)
"""Never in training data: families that do not train, and of some that do a variant outside the trained ranges."""

TEACHERS: tuple[Entry, ...] = (
    Entry("target_seeking", f.TARGET_SEEKING, "seeks the settlement it was asked for, takes nothing far from it", {}),
    Entry("sparring", f.SPARRING, "concedes as a temper has it that is drawn for each game", {}),
)
"""They train, but no list has them: `experiments.collect` seats as many as it is asked to."""

CATALOGUE = TRAINED + HELD_OUT


def _register(entry: Entry, split: str) -> None:
    family = entry.family
    register(
        entry.name,
        family.factory,
        family=family.name,
        description=entry.description,
        defaults=entry.defaults,
        ranges=family.ranges,
        source=family.source,
        stochastic=family.stochastic,
        uses_history=family.uses_history,
        evaluable=family.evaluable,
        teaching=family.teaching,
        split=split,
    )


for _entries, _split in ((TRAINED, "train"), (HELD_OUT, "held_out"), (TEACHERS, "train")):
    for _entry in _entries:
        _register(_entry, _split)
