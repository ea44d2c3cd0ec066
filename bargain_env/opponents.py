"""Who sits opposite a single learner: any `Policy`, several, or a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import rng
from .core import Seat
from .errors import InputError
from .policy import Moves, Policy, SeatGames, SeatView, act_in_parts, act_on_any_turns
from .rng import Stream
from .scenarios import Preset

Opponent = Any
"""A `Policy`, a name, or a list of them of which each game draws one."""


class Linear:
    """Concede in equal steps from the public bound on one's side to one's reservation; accept what is as good as that.

    The opponent of an environment that was given none. Faratin et al. 1998, time-dependent tactics with β = 1.
    """

    memoryless = True
    mixed_turns = True

    def __init__(self, name: str = "linear") -> None:
        self.name = name

    def reset(self, games: SeatGames) -> None:
        """Nothing to forget."""

    def act(self, view: SeatView) -> Moves:
        """One move a row."""
        games = view.games
        start = games.price_low if games.seat == Seat.BUYER else games.price_high
        elapsed = np.minimum(view.turn / np.maximum(games.max_turns - 1, 1), 1.0)
        target = start + elapsed * (games.reservation - start)
        accept = games.sign * (view.standing - target) <= 0  # NaN, where nothing stands, is not
        return Moves(accept=accept, price=target)


class Mixture:
    """Several memoryless policies; each game is played by one of them, drawn evenly, a pure function of (seed, id).

    Raises:
        InputError: none is given, or one keeps memory, so that it cannot be asked for some games only.
    """

    memoryless = True
    mixed_turns = True

    def __init__(self, policies: Sequence[Policy], name: str = "mixture") -> None:
        self.name, self._policies = name, list(policies)
        if not policies:
            raise InputError("a list of opponents must name at least one")
        for policy in policies:
            if not getattr(policy, "memoryless", False):
                raise InputError(f"opponent {policy.name!r} keeps memory; only memoryless policies can share a seat")

    def drawn(self, games: SeatGames) -> np.ndarray:
        """``[B]`` which policy plays each game."""
        u = rng.uniform(games.seed, games.id, seat=games.seat, stream=Stream.PAIRING)[:, 0]
        return (u * len(self._policies)).astype(np.intp)

    def reset(self, games: SeatGames) -> None:
        """Nothing to forget."""

    def act(self, view: SeatView) -> Moves:
        """Ask each policy for the rows of its games."""
        return act_in_parts(self.drawn(view.games), lambda k, at: act_on_any_turns(self._policies[k], view.take(at)))


_by_name: list[Callable[[Preset, str], Policy]] = []


def understand_names(make_for: Callable[[Preset, str], Policy]) -> None:
    """Let opponents be given by name; `agents` calls this when it is imported."""
    _by_name[:] = [make_for]


def opponent_of(given: Opponent, preset: Preset) -> Policy:
    """``given`` as a policy: None is `Linear`, a list a `Mixture`, a name whatever `agents` registers under it.

    A strategy given by name is told the ZOPA width where ``preset`` makes it common knowledge. Any name is understood, those
    held out of training data too, since evaluating is as good a reason to name one as learning: whoever learns here and
    means to compare on the held-out strategies names only such as ``agents.list_strategies(split="train")`` has.

    Raises:
        InputError: it is none of these, or a name is not known.
    """
    if given is None:
        return Linear()
    if isinstance(given, str):
        if not _by_name:
            raise InputError(f"opponent {given!r} is a name; `import agents` first, which knows the strategies by name")
        return _by_name[0](preset, given)
    if isinstance(given, Sequence):
        return Mixture([opponent_of(one, preset) for one in given])
    if isinstance(given, Policy):
        return given
    raise InputError(
        f"opponent {given!r} is not a policy; give an object with name, reset(games) and act(view), a name, or a list"
    )
