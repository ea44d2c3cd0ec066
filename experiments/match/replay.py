"""A recorded game played again: from what ``summary.json`` says of its tournament, and compared with what was recorded.

Scenario, luck and requested ρ of a game follow from its id and the settings, so the game is played as a tournament of that
one cell and that one scenario. Two things need more than the cell. What the ``shuffled`` control was given follows from
the whole grid of its seat. And the floats of a language model depend on the shape of its batch: ``batch=True`` plays all
the games that it shared one with.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bargain_env import PRESETS, Seat
from bargain_env.errors import InputError, unknown

from . import arena, contestants, opponents, protocol
from .arena import Plan, Shard
from .arms import JanusOptions
from .contestants import Contestant
from .recorded import Game, episode_id, turns

_SCENARIO = ("seed", "starter", "buyer_max", "seller_min")


def play_again(folder: Path, game: Game, settings: Mapping[str, Any], *, batch: bool = False) -> Game:
    """The row that the game would have if its tournament were run again now.

    Args:
        folder: of the tournament.
        game: as it was recorded.
        settings: of the tournament, as ``summary.json`` records them.
        batch: play all games of the batch that it was played in, so that a language model meets the same shapes.

    Raises:
        InputError: the agent or the opponent cannot be built here, or the settings are not those of the game.
    """
    options = JanusOptions(**{f.name: settings[f.name] for f in fields(JanusOptions) if f.name in settings})
    player = _player(game, settings, options)
    plan = _plan(game, settings, options, player, batch)
    arena.check([player], plan)
    seat, number = Seat[game["agent_seat"].upper()], game["scenario_id"]
    team = _team(player, settings) if batch else [player]
    shard = _batch_of(team, plan, seat, number) if batch else Shard(0, seat, number, 1, 1)
    try:
        rows = arena.play_shard(team, plan, shard).to_pylist()
    except InputError as error:
        raise InputError(f"game {game['episode_id']!r} cannot be played again: {error}") from error
    return next(row for row in rows if row["episode_id"] == episode_id(game))


def _player(game: Game, settings: Mapping[str, Any], options: JanusOptions) -> Contestant:
    """The agent of the game, seated as its tournament seated it."""
    try:
        players = contestants.resolve_agents(game["agent"], options)
        opponents.about(game["opponent"])
    except InputError as error:
        hint = "give the --plugin that registered it, if one did, and run this where its files are found"
        raise InputError(f"game {game['episode_id']!r} cannot be played again: {error}; {hint}") from error
    [player] = protocol.seated(players) if settings.get("protocol") else players
    if player.takes_rho == (game["rho_requested"] is None):
        raise InputError(
            f"agent {player.label!r} {'takes' if player.takes_rho else 'takes no'} rho here, unlike in game "
            f"{game['episode_id']!r}; play it with the version that recorded it"
        )
    return player


def _plan(game: Game, settings: Mapping[str, Any], options: JanusOptions, player: Contestant, batch: bool) -> Plan:
    if settings["scenario"] not in PRESETS:
        raise unknown("scenario", settings["scenario"], PRESETS)
    seat = Seat[game["agent_seat"].upper()]
    asked: tuple[float, ...] = () if game["rho_requested"] is None else (game["rho_requested"],)
    if player.takes_rho and (batch or player.shuffled):
        asked = _grid(game, settings, seat, player)
    return Plan(
        opponents=tuple(settings["opponents"]) if batch else (game["opponent"],),
        rho={seat: asked},
        games=settings["games"] if batch else game["scenario_id"] + 1,
        seats=(seat,),
        preset=PRESETS[settings["scenario"]],
        seed=settings["seed"],
        max_turns=settings["max_turns"],
        janus=options,
    )


def _grid(game: Game, settings: Mapping[str, Any], seat: Seat, player: Contestant) -> tuple[float, ...]:
    """ρ asked for at a seat, in the order in which its tournament asked; the order matters to ``shuffled`` alone.

    Raises:
        InputError: the settings do not say.
    """
    if seat.label not in settings.get("grids", {}):
        raise InputError(
            f"game {game['episode_id']!r} cannot be played again: its summary does not say for which rho {player.label!r} "
            "was asked beside it; run the tournament again with this version"
        )
    return tuple(settings["grids"][seat.label])


def _team(player: Contestant, settings: Mapping[str, Any]) -> list[Contestant]:
    """Who played in the same batches: scripts share one with scripts."""
    if not player.scripted:
        return [player]
    everybody = contestants.resolve_agents(",".join(settings["agents"]))
    return next(list(team) for team in arena.teams(everybody) if player.label in {member.label for member in team})


def _batch_of(team: list[Contestant], plan: Plan, seat: Seat, number: int) -> Shard:
    """The block of scenarios that number ``number`` was played in, as a shard of its own."""
    whole = next(s for s in arena.shards(team, plan) if s.seat == seat and s.first <= number < s.first + s.count)
    first = number - (number - whole.first) % whole.block
    return Shard(0, seat, first, min(whole.block, whole.first + whole.count - first), whole.block)


# ── is it the same ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing in which two games of one id differ.

    Attributes:
        where: ``turn 3``, or a column.
        recorded: what the file has there.
        played: what was played now.
    """

    where: str
    recorded: str
    played: str

    def __str__(self) -> str:
        return f"{self.where}: recorded {self.recorded}, now {self.played}"


def difference(recorded: Game, played: Game) -> Difference | None:
    """The first difference: in the scenario, then turn by turn, then in any column; None if there is none.

    Columns that an earlier version did not record are left out.
    """
    for name in _SCENARIO:
        if recorded[name] != played[name]:
            return Difference(name, str(recorded[name]), str(played[name]))
    one, two = ([turn.move for turn in turns(game)] for game in (recorded, played))
    for i, (a, b) in enumerate(itertools.zip_longest(one, two), 1):
        if a != b:
            return Difference(f"turn {i}", _said(a), _said(b))
    for name in recorded:
        if recorded[name] != played[name]:
            return Difference(name, str(recorded[name]), str(played[name]))
    return None


def _said(move: tuple[str, str, float | None] | None) -> str:
    if move is None:
        return "nothing, the game was over"
    seat, action, price = move
    if price is None:
        return f"{seat} wastes the turn"
    return f"{seat} {action}s {price:.2f}" if price == round(price, 2) else f"{seat} {action}s {price!r}"


def thinks(name: str) -> bool:
    """Whether an agent or opponent is a language model, whose moves hang on floats."""
    return name.startswith("text:") or opponents.janus_of(name) is not None
