"""The families of strategies: what builds a member, in which ranges its parameters are drawn, where it is published.

The ranges of a family that trains hold its registered members, but not its held-out variant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TypeVar

from bargain_env import Policy
from bargain_env.errors import InputError

from ..ranges import Range
from .acceptance import AcBest, AcChance, AcConst, ac_combi
from .charging import ChargingBoul
from .checks import require_between
from .components import Composed, composed
from .micro import Micro
from .mixtures import SingleConcession, Weighted
from .modelling import BestReply, Counter
from .reactive import AveragedTitForTat, RelativeTitForTat, SplitDifference, TitForTat
from .resource import ResourceDependent
from .simple import Anywhere, NearLimit
from .sparring import sparring
from .teaching import target_seeking
from .time_dependent import Exponential, Fair, Hardliner, Noisy, Polynomial, WalkAway

FARATIN = "Faratin, Sierra, Jennings 1998, Robotics and Autonomous Systems 24(3-4):159-182"
TIME, RESOURCE, BEHAVIOUR = (f"{FARATIN}, section 4.{k}" for k in (1, 2, 3))
MICRO_PAPER = "de Jonge 2022, IJCAI, pp. 223-229"
CHARGING_PAPER = "Shymanski 2025, arXiv:2512.06595 (ANAC 2022)"
MIXING = "Richter, Klusch, Kowalczyk 2011, MATES, LNAI 6973:113-124, section 3.2"
ACCEPTANCE = "Baarslag, Hindriks, Jonker 2013, Studies in Computational Intelligence 435:95-111"
BAYES = "after Zeng, Sycara 1998, Int. J. Human-Computer Studies 48:125-141, and Hou 2004, IAT"
JANUS = "github.com/zacharytgray/Single-Price-Point-Negotiation-Domain, 2026"
HERE = "this project"

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the members of a family have in common; see `agents.StrategyInfo`."""

    name: str
    factory: Callable[..., Policy]
    source: str
    ranges: Mapping[str, Range] = field(default_factory=dict)
    stochastic: bool = False
    uses_history: bool = False
    evaluable: bool = True
    teaching: bool = False


# ── how parameters become tactics, where these do not take them as they are ───────────────────────────────────────────


def _takes_exponent(build: Callable[..., Made]) -> Callable[..., Made]:
    """``build``, for which ``beta`` is a mistake that is easily made: the published zoo calls its exponent so."""

    @wraps(build)
    def checked(**params: object) -> Made:
        if "beta" in params:
            raise InputError("beta is Faratin's everywhere; this family takes exponent, which is 1 / beta")
        return build(**params)

    return checked


@_takes_exponent
def _polynomial(exponent: float, cap: float = 0.95) -> Polynomial:
    """Concede ``reach · min(cap, t / T) ** exponent``; the cap keeps even the last offer short of R."""
    return Polynomial.from_seed_exponent(exponent, cap)


@_takes_exponent
def _noisy(exponent: float, cap: float = 0.95, noise_max: float = 25.0, noise_scale: float = 0.05) -> Noisy:
    """Concede ``reach · min(cap, t / T) ** exponent``; offers are shaken by ``U(-d, d)``, ``d = min(noise_max,
    noise_scale · W)``, and end at S.
    """
    tactic = Polynomial.from_seed_exponent(exponent, cap)
    return Noisy(tactic=tactic, noise_max=noise_max, noise_scale=noise_scale)


@_takes_exponent
def _walk_away(exponent: float, cap: float = 0.95) -> WalkAway:
    """Open at R and walk away from it by ``W · min(cap, t / T) ** exponent``; backwards, as published."""
    return WalkAway(tactic=Polynomial.from_seed_exponent(exponent, cap))


def _random(acceptance: float = 0.3, assumed_zopa_width: float | None = None) -> Composed:
    """Offer evenly between S and R; on each turn accept, with a fixed chance, any standing offer no worse than R.

    Not reproduced: the published strategy needed both reservations, was never given them and silently played
    ``linear_standard``. This one knows only its own seat. It makes varied training data; tournaments leave it out.
    """
    require_between("acceptance", acceptance, 0.0, 1.0)
    return Composed(offering=Anywhere(), acceptance=AcChance(acceptance), assumed_zopa_width=assumed_zopa_width)


@_takes_exponent
def _combi(exponent: float = 4.0, since: float = 0.8, assumed_zopa_width: float | None = None) -> Composed:
    """As ``boulware_hard``, but from the share ``since`` of the turns on it also accepts what is as good as the best offer
    received within as many turns as are left (AC_combi with MAX^W).
    """
    tactic, condition = Polynomial.from_seed_exponent(exponent), ac_combi(since, AcBest())
    return Composed(offering=tactic, acceptance=condition, assumed_zopa_width=assumed_zopa_width)


def _random_absolute(lag: int = 1, extra: int = 0) -> TitForTat:
    """Concede as much as the opponent did ``lag`` of its turns ago and, on top, a random whole number of currency units from
    0 to ``extra``; take back as much as it took back. Open at S, and repeat the last offer until there is a step to answer.
    """
    return TitForTat(lag=lag, extra=extra, retreats=True)


def _turns_left(patience: float = 1.0, kappa: float = 0.0) -> ResourceDependent:
    """Give ``reach · (kappa + (1 - kappa) · exp(-resource))``, where the resource is ``patience`` times the turns left,
    those of both seats: little but kappa until the last few, everything on the last.
    """
    return ResourceDependent(resource="time", patience=patience, kappa=kappa)


def _thread(patience: float = 1.0, kappa: float = 0.0) -> ResourceDependent:
    """Give ``reach · (kappa + (1 - kappa) · exp(-resource))``, where the resource is ``patience`` over the moves made so
    far, those of both seats: kappa alone on the first turn, more the longer the talk, never everything.
    """
    return ResourceDependent(resource="thread", patience=patience, kappa=kappa)


def _mixture(mix: type[Weighted], weight: float = 0.5, beta: float = 0.5) -> Weighted:
    """Mix a polynomial tactic, with ``weight``, and tit-for-tat, with the rest.

    `mixture_weighted` adds up what they would offer, and may retreat; `mixture_single` what they would next concede.
    """
    return mix(tactics=(Polynomial(beta=beta), TitForTat(retreats=True)), weights=(weight, 1.0 - weight))


# ── in the published zoo ──────────────────────────────────────────────────────────────────────────────────────────────

BOULWARE = Family(
    name="boulware",
    factory=composed(_polynomial),
    source=TIME,
    ranges={"exponent": Range(0.2, 4.0, log=True)},
)
NOISY = Family(
    name="noisy_boulware",
    factory=composed(_noisy),
    source=TIME,
    ranges={"exponent": Range(0.5, 4.0, log=True)},
    stochastic=True,
)
TIT_FOR_TAT = Family(name="tit_for_tat", factory=composed(TitForTat), source=BEHAVIOUR, uses_history=True)
SPLIT = Family(name="split_difference", factory=composed(SplitDifference), source=JANUS, uses_history=True)
HARDLINER = Family(
    name="hardliner", factory=composed(Hardliner), source=JANUS, ranges={"cave_in_margin": Range(1.0, 25.0, log=True)}
)
RANDOM = Family(
    name="random_zopa",
    factory=_random,
    source=JANUS,
    ranges={"acceptance": Range(0.1, 0.5)},
    stochastic=True,
    evaluable=False,
)
MICRO = Family(
    name="micro",
    factory=composed(Micro),
    source=MICRO_PAPER,
    ranges={"step": Range(10.0, 50.0, log=True)},
    stochastic=True,
    uses_history=True,
)
CHARGING = Family(
    name="charging_boul",
    factory=composed(ChargingBoul),
    source=CHARGING_PAPER,
    ranges={"floor": Range(0.5, 0.6), "exponent": Range(0.2, 0.8, log=True)},
    stochastic=True,
    uses_history=True,
)
FAIR = Family(name="fair", factory=composed(Fair, AcConst(0.5)), source=JANUS, ranges={"opening": Range(0.4, 1.0)})
NAIVE = Family(
    name="naive_concession",
    factory=composed(NearLimit, AcConst(0.0)),
    source=JANUS,
    ranges={"margin": Range(15.0, 50.0), "jitter": Range(0.0, 15.0)},
    stochastic=True,
)
NAIVE_BOULWARE = Family(
    name="naive_boulware",
    factory=composed(_walk_away, AcConst(0.0)),
    source=JANUS,
    ranges={"exponent": Range(2.0, 4.0, log=True)},
)

# ── asked to reach a settlement ───────────────────────────────────────────────────────────────────────────────────────

TARGET_SEEKING = Family(
    name="target_seeking",
    factory=target_seeking,
    source=HERE,
    ranges={
        "target": Range(0.0, 1.0),
        "opening": Range(0.0, 0.15),
        "beta": Range(0.3, 3.0, log=True),
        "generous": Range(0.5, 1.0),
        "tolerance": Range(0.02, 0.1),
        "widening": Range(0.0, 0.2),
        "late": Range(0.1, 0.4),
        "last": Range(0.0, 0.4),
    },
    evaluable=False,
    teaching=True,
)

SPARRING = Family(
    name="sparring",
    factory=sparring,
    source=HERE,
    stochastic=True,
    uses_history=True,
    evaluable=False,
    teaching=True,
)

# ── held out ──────────────────────────────────────────────────────────────────────────────────────────────────────────

EXPONENTIAL = Family(
    name="exponential",
    factory=composed(Exponential),
    source=TIME,
    ranges={"beta": Range(0.2, 5.0, log=True), "kappa": Range(0.01, 0.2, log=True)},
)
RELATIVE = Family(
    name="relative_tit_for_tat",
    factory=composed(RelativeTitForTat),
    source=BEHAVIOUR,
    ranges={"lag": Range(1, 3, whole=True)},
    uses_history=True,
)
RANDOM_ABSOLUTE = Family(
    name="random_absolute_tit_for_tat",
    factory=composed(_random_absolute),
    source=BEHAVIOUR,
    ranges={"lag": Range(1, 3, whole=True), "extra": Range(1, 40, whole=True)},
    stochastic=True,
    uses_history=True,
)
AVERAGED = Family(
    name="averaged_tit_for_tat",
    factory=composed(AveragedTitForTat),
    source=BEHAVIOUR,
    ranges={"window": Range(1, 4, whole=True)},
    uses_history=True,
)
TIME_LEFT = Family(
    name="resource",
    factory=composed(_turns_left),
    source=RESOURCE,
    ranges={"patience": Range(0.5, 8.0, log=True), "kappa": Range(0.0, 0.2)},
)
THREAD = Family(
    name="resource",
    factory=composed(_thread),
    source=RESOURCE,
    ranges=TIME_LEFT.ranges,
)
WEIGHTED = Family(
    name="mixture",
    factory=composed(partial(_mixture, Weighted)),
    source=FARATIN,
    ranges={"weight": Range(0.2, 0.8), "beta": Range(0.2, 5.0, log=True)},
    uses_history=True,
)
SINGLE = Family(
    name="mixture",
    factory=composed(partial(_mixture, SingleConcession)),
    source=MIXING,
    ranges=WEIGHTED.ranges,
    uses_history=True,
)
COMBI = Family(
    name="combi",
    factory=_combi,
    source=ACCEPTANCE,
    ranges={"exponent": Range(2.0, 4.0, log=True), "since": Range(0.6, 0.95)},
    uses_history=True,
)
BEST_REPLY = Family(
    name="modelling",
    factory=composed(BestReply),
    source=BAYES,
    ranges={"path": Range(0.2, 2.0, log=True)},
    uses_history=True,
)
COUNTER = Family(name="modelling", factory=composed(Counter), source=HERE, uses_history=True)
