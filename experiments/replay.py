"""Replay: one recorded game of a tournament, turn by turn; with --again it is played anew and compared.

    python -m experiments.replay runs/tournament 'janus-nano|buyer|0.20|fair|000000007' --again

Ids are those of episodes.parquet: AGENT|SEAT|RHO|OPPONENT|SCENARIO. Exit code 1 says that --again gave another game.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bargain_env.errors import InputError
from experiments import cli
from experiments.match import recorded, replay
from experiments.match.recorded import Game, Turn
from experiments.match.results import rho_text
from experiments.plugins import load_plugin
from experiments.reporting import summary


@dataclass(frozen=True)
class Settings:
    """Show one recorded game of a tournament; play it again and compare."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The --out folder of a finished tournament."""
    episode_id: Annotated[str, tyro.conf.Positional]
    """AGENT|SEAT|RHO|OPPONENT|SCENARIO as in episodes.parquet, quoted for the shell."""
    again: bool = False
    """Play it again from the tournament's settings; exit with 1 if that gives another game."""
    batch: bool = False
    """With --again: play the whole batch that it was played in, so that the floats of a language model are the same too."""
    plugin: Path | None = None
    """Python file that calls agents.register, run first."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the game as one JSON object, and nothing else."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was found.

    Attributes:
        game: as it was recorded.
        turns: its moves.
        again: the game that was played now; None where that was not asked for.
        difference: the first one between the two; None if there is none.
    """

    game: Game
    turns: list[Turn]
    again: Game | None = None
    difference: replay.Difference | None = None


def run(settings: Settings) -> Replayed:
    """Find, show, and play again where that was asked for.

    Raises:
        InputError: no tournament, no such game, or it cannot be played again.
        SystemExit: with code 1, another game was played; after everything was printed.
    """
    if settings.batch and not settings.again:
        raise InputError("--batch says how --again plays; give both")
    if settings.plugin is not None:
        load_plugin(settings.plugin)
    told = summary.read(settings.folder)["settings"]
    game = recorded.find(settings.folder, settings.episode_id, told)
    found = Replayed(game, recorded.turns(game))
    console = cli.console(settings.quiet or settings.json)
    _show(console, found, told)
    if settings.again:
        played = replay.play_again(settings.folder, game, told, batch=settings.batch)
        found = Replayed(game, found.turns, played, replay.difference(game, played))
        console.print(escape(_verdict(found, settings.batch)), soft_wrap=True)
    if settings.json:
        print(json.dumps(document(settings.folder, found, told), ensure_ascii=False))
    if found.difference is not None:
        raise SystemExit(1)
    return found


def document(folder: Path, found: Replayed, told: Mapping[str, Any]) -> dict[str, Any]:
    """JSON of a game: ``game`` its row, ``turns``, ``scenario``, ``command``; ``again`` and ``difference`` if played."""
    shown = {
        "game": found.game,
        "scenario": told.get("scenario"),
        "max_turns": told.get("max_turns"),
        "turns": [asdict(turn) for turn in found.turns],
        "command": recorded.replay_command(folder, found.game["episode_id"]),
    }
    if found.again is None:
        return shown
    difference = None if found.difference is None else asdict(found.difference)
    return shown | {"again": {"same": found.difference is None, "difference": difference, "game": found.again}}


# ── for people ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _show(console: Console, found: Replayed, told: Mapping[str, Any]) -> None:
    for line in _heading(found.game, told):
        console.print(line, soft_wrap=True)
    console.print()
    console.print(_table(found))
    console.print()
    console.print(escape(_ending(found.game)), soft_wrap=True)


def _heading(game: Game, told: Mapping[str, Any]) -> Iterator[str]:
    asked = "" if game["rho_requested"] is None else f", asked for rho {rho_text(game['rho_requested'])}"
    if game["rho_requested"] is not None and game["agent"] in told.get("controls", []):
        asked += " (a control)"
    yield f"[bold]{escape(game['agent'])}[/] as {game['agent_seat']}{asked}, against [bold]{escape(game['opponent'])}[/]"
    preset = f"scenario {game['scenario_id']} of {told.get('scenario')!r}, seed {game['seed']}"
    limits = f"the buyer pays at most {game['buyer_max']:.2f}, the seller takes at least {game['seller_min']:.2f}"
    width = game["buyer_max"] - game["seller_min"]
    zone = f"a ZOPA of {width:.2f}" if width > 0 else "no ZOPA"
    yield escape(f"{preset}: {limits} ({zone}); the {game['starter']} starts, at most {told.get('max_turns')} turns")


def _table(found: Replayed) -> Table:
    table = Table(box=None, pad_edge=False)
    overruled = any(turn.replaced for turn in found.turns)
    for head in ("turn", "seat", "who", "action", "price", "rho", *(["instead of"] if overruled else [])):
        table.add_column(head, justify="right" if head in ("turn", "price", "rho") else "left")
    game = found.game
    for turn in found.turns:
        own = turn.seat == game["agent_seat"]
        cells = [str(turn.turn), turn.seat, escape(game["agent"] if own else game["opponent"]), turn.action]
        cells += ["" if turn.price is None else f"{turn.price:.2f}", "" if turn.rho is None else f"{turn.rho:.3f}"]
        table.add_row(*cells, *([_instead(turn)] if overruled else []), style="cyan" if own else "")
    return table


def _instead(turn: Turn) -> str:
    """What the agent had decided where something else was played."""
    if turn.replaced is None:
        return ""
    if turn.replaced == recorded.FALLBACK:
        return "an answer that was no move"
    if turn.decided_accept:
        return "accepting (guard)"
    return f"offering {turn.decided_price:.2f} (guard)"


def _ending(game: Game) -> str:
    utility = f"utility {game['utility']:.3f}, of the opponent {game['opponent_utility']:.3f}"
    if not game["agreement"]:
        return f"no deal after {game['turns']} turns; {utility}"
    rho = "" if game["rho_achieved"] is None else f" at rho {game['rho_achieved']:.3f}"
    return f"deal{rho} for {game['price']:.2f} on turn {game['turns']}; {utility}"


def _verdict(found: Replayed, batch: bool) -> str:
    if found.difference is None:
        return "the same game again"
    text = f"not the same game: {found.difference}"
    if any(replay.thinks(found.game[who]) for who in ("agent", "opponent")):
        text += "\nThe floats of a language model depend on the shape of its batch, on threads and on the machine"
        text += "." if batch else "; --batch plays the game among those that shared its batch."
    return text


if __name__ == "__main__":
    cli.main(Settings, run)
