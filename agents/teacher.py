"""A goal-conditioned player: a small network that was told which settlement to reach, `Teacher`.

`experiments.teacher` trains it by playing; its games teach Janus. It knows what its seat knows and the goal ρ*, and thinks
in *demands*: currency units above its own limit, as shares of a scale. So a demand of 0 is its limit, in either seat.

A move is one of `MOVES`: accept, concede so much from its latest own offer (from a demand of 1 at the start), or open with
what the goal would bring if the ZOPA were as wide as the scale. It therefore never takes an offer back, and never offers or
accepts what is worse than its limit. A goal that favours the opponent is met by conceding much at once.

It remembers no more than the prompt of its pupil shows: what it knew beyond that, the pupil could only guess at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bargain_env.core import Seat
from bargain_env.errors import InputError
from bargain_env.files import replacing
from bargain_env.policy import Bools, Floats, Moves, SeatGames, SeatView

from .guards import beyond_limit, own_limit, playable

CONCESSIONS = np.array(
    [0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.36, 0.44, 0.52, 0.6, 0.7, 0.8, 0.9, 1.0]
)
"""What it may give up at a time, in shares of the scale."""
MOVES = 2 + len(CONCESSIONS)
ACCEPT, AT_GOAL = 0, MOVES - 1
PAST = 4
"""Latest offers of each seat that it remembers: those in the `hyperlora.prompt.K_HISTORY` slots of a prompt."""
CLOCK = 20
"""Turns left that it tells apart; of more it knows who will have the last one."""
FEATURES = 4 * PAST + CLOCK + 2 * (PAST - 1) + 5
FAR = 3.0
"""Demands beyond this are taken for it."""
STEP = 10.0
"""What concessions are enlarged by: who mirrors them is told from who stands still by hundredths."""
SLACK = 0.005
"""A concession may exceed what is left of the demand by as much, so that what ticks leave of it can be conceded too."""
MIDDLE, SPREAD = 800.0, 300.0
"""What limits are normalised with, currency units."""
SUFFIX = ".safetensors"
KIND, SCHEMA = "goal-conditioned player", "3"


def features(view: SeatView, goal: Floats, scale: float) -> NDArray[np.float32]:
    """``[b, FEATURES]``: own and other offers, newest first, and which are there; turns left; what own and other offers gave
    up, newest first; goal, seat, limit, standing offer and the best of the other's.

    Args:
        view: what the seat is shown; its rows may be on different turns.
        goal: ``[b]`` ρ* in [0, 1].
        scale: currency units of a demand of 1.
    """
    games = view.games
    seen = np.zeros((len(view), FEATURES), dtype=np.float32)
    demands = [_demands(view, offers, scale)[:, ::-1][:, :PAST] for offers in (view.own_offers, view.opponent_offers)]
    for k, found in enumerate(demands):
        n = found.shape[1]
        seen[:, 2 * k * PAST : 2 * k * PAST + n] = np.nan_to_num(found)
        seen[:, (2 * k + 1) * PAST : (2 * k + 1) * PAST + n] = ~np.isnan(found)
    left = games.max_turns - view.turn
    left = np.where(left < CLOCK, left, CLOCK - 2 + left % 2)
    seen[np.arange(len(view)), 4 * PAST + left] = 1.0
    offered = _demands(view, view.opponent_offers[:, -PAST:], scale)
    best = np.where(np.isnan(offered), -FAR, offered).max(axis=1, initial=-FAR)
    standing = np.nan_to_num(_demands(view, view.standing[:, None], scale)[:, 0])
    mine, theirs = demands
    for k, gave in enumerate((mine[:, 1:] - mine[:, :-1], theirs[:, :-1] - theirs[:, 1:])):
        first = 4 * PAST + CLOCK + k * (PAST - 1)
        seen[:, first : first + gave.shape[1]] = np.clip(np.nan_to_num(gave) * STEP, -FAR, FAR)
    facts = (goal, np.full(len(view), float(games.seat)), (games.reservation - MIDDLE) / SPREAD, standing, best)
    seen[:, -len(facts) :] = np.stack(facts, axis=1)
    return seen


def legal(view: SeatView, scale: float) -> Bools:
    """``[b, MOVES]`` accepting what suits its limit, concessions down to that limit, and opening at the goal."""
    latest = latest_demand(view, scale)
    allowed = np.empty((len(view), MOVES), dtype=bool)
    allowed[:, ACCEPT] = ~np.isnan(view.standing) & ~beyond_limit(view)
    allowed[:, 1:AT_GOAL] = latest[:, None] + SLACK >= CONCESSIONS
    allowed[:, AT_GOAL] = np.isnan(view.own_offers).all(axis=1)
    return allowed


def moves(view: SeatView, chosen: NDArray[np.integer], goal: Floats, scale: float) -> Moves:
    """The moves ``chosen`` ``[b]``, on the tick."""
    games, accept = view.games, chosen == ACCEPT
    conceded = CONCESSIONS[np.clip(chosen, 1, len(CONCESSIONS)) - 1]
    demand = np.maximum(latest_demand(view, scale) - conceded, 0.0)
    demand = np.where(chosen == AT_GOAL, demand_at(games.seat, goal), demand)
    offer, limit = playable(games.reservation - games.sign * scale * demand, games), own_limit(games)
    beyond = games.sign * (limit - offer) < 0  # the nearest tick to a limit between two may be
    offer = np.where(beyond, limit, offer)
    return Moves(accept, np.where(accept, np.nan, offer))


def demand_at(seat: Seat, goal: Floats) -> Floats:
    """``[b]`` the share of the ZOPA that a settlement at ``goal`` leaves to ``seat``."""
    return 1.0 - goal if seat == Seat.BUYER else goal


def latest_demand(view: SeatView, scale: float) -> Floats:
    """``[b]`` in [0, 1]: of its latest own offer, 1 before the first."""
    own = view.own_offers
    if not own.shape[1]:
        return np.ones(len(view))
    found = _demands(view, own[:, -1:], scale)[:, 0]
    return np.where(np.isnan(found), 1.0, np.clip(found, 0.0, 1.0))


def _demands(view: SeatView, offers: Floats, scale: float) -> Floats:
    worth: Floats = (view.games.reservation[:, None] - offers) * view.games.sign / scale
    return np.clip(worth, -FAR, FAR)


@dataclass(frozen=True, slots=True)
class TeacherNetwork:
    """Scores of its moves.

    Attributes:
        layers: weights ``[out, in]`` and biases ``[out]``, with max(0, x) between them.
        scale: currency units of a demand of 1.
        scenario: the presets that it learned on, a comma list.
    """

    layers: tuple[tuple[Floats, Floats], ...]
    scale: float
    scenario: str

    def __call__(self, seen: NDArray[np.float32]) -> Floats:
        """``[b, MOVES]`` of ``[b, FEATURES]``, in float64: rows do not depend on their batch but in the last bits."""
        hidden = seen.astype(np.float64)
        for weight, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ weight.T + bias, 0.0)
        weight, bias = self.layers[-1]
        return hidden @ weight.T + bias

    def save(self, path: Path) -> None:
        """Write it as safetensors; the same network gives the same bytes."""
        from safetensors.numpy import save

        tensors: dict[str, NDArray[np.float32]] = {}
        for k, (weight, bias) in enumerate(self.layers):
            tensors |= {f"{k}.weight": weight.astype(np.float32), f"{k}.bias": bias.astype(np.float32)}
        about = {"kind": KIND, "schema_version": SCHEMA, "scale": repr(self.scale), "scenario": self.scenario}
        with replacing(path) as temporary:
            temporary.write_bytes(_in_order(save(tensors, metadata=about)))


def _in_order(data: bytes) -> bytes:
    """A safetensors file whose header is sorted: the library leaves what is said of the file in the order of a hash map."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(size)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


class Teacher:
    """A `bargain_env.Policy` that seeks a settlement; see the module.

    It takes the move that its network likes best, so nothing is drawn. Equal scores to 16 digits aside, a game does not
    depend on the batch that it is in.

    Args:
        path: a file of `TeacherNetwork.save`.
        goal: ρ*, one for all games or ``[B]`` one a game.

    Raises:
        InputError: the file is none, or a goal is not in [0, 1].
    """

    mixed_turns = True

    def __init__(self, path: str | Path, goal: ArrayLike = 0.5) -> None:
        self.name = "teacher"
        self.goal = np.asarray(goal, dtype=np.float64)
        if not ((self.goal >= 0.0) & (self.goal <= 1.0)).all():
            raise InputError(f"goal {goal!r} of a teacher must lie in [0, 1]")
        file = Path(path)
        self.network = load_network(file, file.stat().st_mtime_ns if file.is_file() else 0)
        self._goals = np.zeros(0)

    def reset(self, games: SeatGames) -> None:
        """Note the goal of each game.

        Raises:
            ValueError: neither one goal nor one a game was given.
        """
        if self.goal.ndim and len(self.goal) != len(games):
            raise ValueError(f"{len(self.goal)} goals for {len(games)} games; give one, or one a game")
        self._goals = np.broadcast_to(self.goal, len(games))

    def act(self, view: SeatView) -> Moves:
        """The best legal move."""
        goal, scale = self._goals[view.rows], self.network.scale
        scores = self.network(features(view, goal, scale))
        return moves(view, np.where(legal(view, scale), scores, -np.inf).argmax(axis=1), goal, scale)


def teacher_file(path: Path, scenario: str) -> Path:
    """The file of the teacher for a preset: ``path`` itself, or the file of that name in the folder ``path``."""
    return path / f"{scenario}{SUFFIX}" if path.is_dir() else path


@lru_cache(maxsize=16)
def load_network(file: Path, stamp: int) -> TeacherNetwork:
    """The network in ``file``; ``stamp`` changes when that is written anew.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise InputError(f"no teacher at {str(file)!r}; train one with `python -m experiments.teacher`")
    try:
        with safe_open(str(file), "np") as opened:
            about: dict[str, str] = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (it is no dict)
    except (SafetensorError, OSError, TypeError) as error:  # the last: a type that numpy lacks
        raise _refusal(file, f"it is no safetensors file, or damaged ({error})") from None
    if about.get("kind") != KIND or about.get("schema_version") != SCHEMA:
        raise _refusal(
            file, f"it says that it is {about.get('kind', 'nothing')!r}, version {about.get('schema_version')}"
        )
    try:
        names = range(len(tensors) // 2)
        layers = tuple((tensors[f"{k}.weight"].astype(float), tensors[f"{k}.bias"].astype(float)) for k in names)
        scale, scenario = float(about["scale"]), about["scenario"]
    except (KeyError, ValueError) as error:
        raise _refusal(file, f"{error} is missing or wrong") from None
    _check(file, layers)
    if not 0.0 < scale < np.inf:
        raise _refusal(file, f"its scale is {scale}")
    return TeacherNetwork(layers, scale, scenario)


def _check(file: Path, layers: Sequence[tuple[Floats, Floats]]) -> None:
    sizes = [FEATURES, *(bias.size for _, bias in layers)]
    fits = [weight.shape == (out, into) for (weight, _), into, out in zip(layers, sizes[:-1], sizes[1:], strict=True)]
    if not layers or not all(fits) or sizes[-1] != MOVES:
        raise _refusal(file, f"its layers do not lead from {FEATURES} features to {MOVES} moves")
    if not all(np.isfinite(array).all() for pair in layers for array in pair):
        raise _refusal(file, "it has weights that are not finite")


def _refusal(file: Path, why: str) -> InputError:
    return InputError(
        f"teacher {str(file)!r} cannot be played: {why}; train it again with `python -m experiments.teacher`"
    )
