"""Speed of tournaments: scripts against scripts with results on disk, and what one of a language model spends elsewhere.

Scripts: seconds are of CPU time, which a busy machine does not stretch. The reference plays the same games, by the same
strategies in the same batches, and keeps nothing; the rest is rows, shards, their digests and the merge. Statistics and the
report are not in it: they are made once, whatever the number of games.

The shipped model: wall time on one thread, shared between the model and everything else. Its decisions are what
`hyperlora.decode.Scorer` takes, its forward passes only what its decoder takes in there.

NegMAS, where it is installed, plays three scenarios of one price between four of its own negotiators: general multi-issue
machinery, and other strategies than ours. ``cartesian_tournament`` runs in this process, without files or figures and
without the statistics that it keeps by default, so as fast as it can.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bargain_env import PRESETS, Seat
from experiments.match import arena, contestants, merge, opponents, results
from experiments.match.contestants import Contestant
from experiments.match.identity import Identity
from experiments.match.shard_player import ShardPlayer
from experiments.match.store import ShardStore
from experiments.speed.stopwatch import Speed, Work, rates

GAMES = 40
"""Scenarios of the tournament of scripts, in which all meet all."""
GOAL = 50_000
BAR = 0.4
"""Least speed with results on disk, as a share of that of play alone."""
MODEL_BAR = 0.9
"""Least share of the time that the model's decisions take."""
MODEL_GAMES, MODEL_OPPONENTS = 16, ("boulware_hard", "boulware_firm", "tit_for_tat", "micro_fine", "linear_standard")
MODEL_RHO = (0.0, 0.25, 0.5, 0.75, 1.0)
ALONE = "play alone"
NEGMAS = "NegMAS cartesian_tournament"
NEGMAS_STEPS, NEGMAS_PRICES = 20, (200, 1500)
NEGMAS_LIMITS = ((1100.0, 500.0), (900.0, 700.0), (1400.0, 300.0))
"""Buyer's value and seller's cost of each scenario."""


def measure(seconds: float, seed: int) -> Iterator[Speed]:
    """All figures, one by one; ``seconds`` for each side of a comparison."""
    yield from scripts(seconds, seed)
    yield from model(seed)


# ── scripts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def scripts(seconds: float, seed: int) -> Iterator[Speed]:
    """Games a second of CPU time, all scripts against all, then of NegMAS."""
    names = opponents.resolve("all")
    team = [contestants.script(name) for name in names]
    plan = arena.Plan(tuple(names), arena.same_grid(()), GAMES, tuple(Seat), PRESETS["paper"], seed)
    works: dict[str, Work] = {"on disk": lambda: tournament(team, plan), ALONE: lambda: alone(team, plan)}
    negmas = negmas_tournament() if importlib.util.find_spec("negmas") else None
    if negmas is not None:
        works[NEGMAS] = negmas
    found = rates(works, seconds, clock=time.process_time)
    ratio = found["on disk"] / found[ALONE]
    yield Speed(f"{len(names)} scripts, results on disk", found["on disk"], "games/s", ALONE, ratio, bar=BAR, goal=GOAL)
    yield Speed("the same games, play alone", found[ALONE], "games/s")
    if negmas is None:
        yield Speed(f"{NEGMAS}: not installed, needs negmas", 0.0, "games")
    else:
        yield Speed("results on disk", found["on disk"], "games/s", NEGMAS, found["on disk"] / found[NEGMAS])
        yield Speed(NEGMAS, found[NEGMAS], "games/s")


def tournament(players: Sequence[Contestant], plan: arena.Plan) -> float:
    """Play ``plan`` as `experiments.tournament` does, from shards to ``episodes.parquet``; how many games that were."""
    player = ShardPlayer(players, plan, Identity({}))
    with tempfile.TemporaryDirectory() as folder:
        store = ShardStore(Path(folder), player.identity, player.shards, lambda _: None)
        for number in range(len(player.shards)):
            store.put(number, player.play(number).content)
        pieces = merge.merged(player.teams, plan, player.shards, store.paths)
        results.write_pieces(pieces, Path(folder) / results.EPISODES)
    return float(sum(map(plan.rows, players)))


def alone(players: Sequence[Contestant], plan: arena.Plan) -> float:
    """The games of ``plan``, played and forgotten; how many that were."""
    teams = arena.teams(players)
    blocks = (block for s in arena.shards(players, plan) for block in arena.play_blocks(teams[s.team], plan, s))
    return float(sum(len(played) for played, _ in blocks))


def negmas_tournament() -> Work:
    """NegMAS's own tournament of a price between 200 and 1500, every negotiator against every one, itself included."""
    from negmas.inout import Scenario
    from negmas.outcomes import make_issue, make_os
    from negmas.preferences import LinearAdditiveUtilityFunction
    from negmas.preferences.value_fun import AffineFun
    from negmas.sao import negotiators
    from negmas.tournaments.neg import cartesian_tournament

    kinds = ("BoulwareTBNegotiator", "ConcederTBNegotiator", "NaiveTitForTatNegotiator", "MiCRONegotiator")
    prices = make_os((make_issue(name="price", values=NEGMAS_PRICES),), name="price")

    def side(slope: float, bias: float) -> Any:
        values = {"price": AffineFun(slope, bias=bias)}
        utility = LinearAdditiveUtilityFunction(
            values=values, weights={"price": 1.0}, outcome_space=prices, reserved_value=0.0
        )
        return utility.normalize()

    scenarios = [
        Scenario(outcome_space=prices, ufuns=(side(-1.0, value), side(1.0, -cost))) for value, cost in NEGMAS_LIMITS
    ]

    def work() -> float:
        with contextlib.redirect_stdout(io.StringIO()):  # it shows a bar of its progress
            played = cartesian_tournament(
                [getattr(negotiators, kind) for kind in kinds],
                scenarios,
                n_repetitions=1,
                n_steps=NEGMAS_STEPS,
                njobs=-1,  # in this process
                verbosity=0,
                rotate_ufuns=True,
                self_play=True,
                path=None,
                save_stats=False,
                save_scenario_figs=False,
            )
        return float(len(played.details))

    return work


# ── the shipped model ─────────────────────────────────────────────────────────────────────────────────────────────────


def model(seed: int, options: contestants.JanusOptions | None = None) -> Iterator[Speed]:
    """Games a second of wall time with the shipped model, and the shares of it that the model takes."""
    from hyperlora.decode import Scorer

    options = options or contestants.JanusOptions(threads=1)
    players = contestants.resolve_agents("janus-nano", options)
    plan = arena.Plan(
        MODEL_OPPONENTS, arena.same_grid(MODEL_RHO), MODEL_GAMES, tuple(Seat), PRESETS["paper"], seed, janus=options
    )
    agent: Any = players[0].build(np.zeros(1), plan.preset)
    decoder = agent.adapter.model.get_decoder()
    tournament(players, replace(plan, games=1))  # to warm up
    with timed(Scorer, "_each") as decisions, timed(decoder, "forward") as passes:
        began = time.perf_counter()
        games = tournament(players, plan)
        wall = time.perf_counter() - began
    name = f"janus-nano against {len(MODEL_OPPONENTS)} scripts"
    yield Speed(name, games / wall, "games/s", "its decisions alone", decisions() / wall, bar=MODEL_BAR)
    yield Speed("of that, forward passes", games / wall, "games/s", "its forward passes alone", passes() / wall)


@contextlib.contextmanager
def timed(holder: Any, name: str) -> Iterator[Callable[[], float]]:
    """Wall time in ``holder.name``, calls of itself within a call counted once; the callable says how many seconds."""
    inner, spent, depth = getattr(holder, name), [0.0], [0]

    def watched(*args: Any, **kwargs: Any) -> Any:
        began, depth[0] = time.perf_counter(), depth[0] + 1
        try:
            return inner(*args, **kwargs)
        finally:
            depth[0] -= 1
            if not depth[0]:
                spent[0] += time.perf_counter() - began

    own = name in vars(holder)
    setattr(holder, name, watched)
    try:
        yield lambda: spent[0]
    finally:
        if own:
            setattr(holder, name, inner)
        else:
            delattr(holder, name)
