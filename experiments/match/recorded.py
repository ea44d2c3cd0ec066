"""One recorded game of a finished tournament: found by its id, and turn by turn.

``episodes.parquet`` is sorted by id, and Parquet keeps the least and the greatest id of every row group, so a game is found
by reading one group of a file of any size.
"""

from __future__ import annotations

import contextlib
import difflib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bargain_env.errors import InputError
from bargain_env.outcome import settlement

from .results import EPISODES, SCHEMA, rho_text

Game = dict[str, Any]
"""A row of ``episodes.parquet``, by column; an earlier version did not write the last four."""
FORM = "AGENT|SEAT|RHO|OPPONENT|SCENARIO"
"""How ids look: ρ as `rho_text` writes it, the number of the scenario with nine digits."""
OFFER, ACCEPT, WASTED = "offer", "accept", "wasted"
GUARD, FALLBACK = "guard", "fallback"


def replay_command(folder: Path, episode_id: str) -> str:
    """The command line that shows the game again, quoted for a shell."""
    return shlex.join(["python", "-m", "experiments.replay", str(folder), episode_id])


# ── finding ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def find(folder: Path, episode_id: str, settings: Mapping[str, Any]) -> Game:
    """The game of that id.

    Args:
        folder: of a finished tournament.
        episode_id: as ``episodes.parquet`` has it.
        settings: of the tournament, as ``summary.json`` records them; an unknown id is compared with them.

    Raises:
        InputError: there are no episodes, or none of that id.
    """
    found = games(folder, [episode_id])
    if not found:
        raise InputError(_unknown(folder, episode_id, settings))
    return found[0]


def games(folder: Path, episode_ids: Sequence[str]) -> list[Game]:
    """Those games of these ids that there are; row groups that cannot hold any of them are not read.

    Raises:
        InputError: the folder holds no episodes, or their file is not one.
    """
    import pyarrow.dataset as ds  # so that whoever only prints commands need not wait for it

    path = folder / EPISODES
    if not path.is_file():
        raise InputError(f"no {EPISODES} in {folder}; give the --out folder of a finished tournament")
    try:
        file = ds.dataset(path, format="parquet")
        missing = [name for name in _ALWAYS if name not in file.schema.names]
        if missing:
            raise InputError(f"{path} lacks columns {', '.join(missing)}; run the tournament again with this version")
        rows: list[Game] = file.to_table(filter=pc.field("episode_id").isin(list(episode_ids))).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not readable Parquet ({error}); run the tournament again") from error
    return rows


_ALWAYS = SCHEMA.names[: SCHEMA.names.index("fallback_moves")]
"""Columns that tournaments of every version wrote."""


def episode_id(game: Mapping[str, Any]) -> str:
    """The id of a game, from the columns that it is made of."""
    rho = "-" if game["rho_requested"] is None else rho_text(game["rho_requested"])
    parts = [game["agent"], game["agent_seat"], rho, game["opponent"], f"{game['scenario_id']:09d}"]
    return "|".join(parts)


def _unknown(folder: Path, given: str, settings: Mapping[str, Any]) -> str:
    """What is wrong with an id that no game has, and the nearest that one has."""
    text = f"no game {given!r} in {folder / EPISODES}; ids look like {FORM}"
    near = _nearest(given, settings)
    if near and games(folder, [near]):
        return f"{text}; did you mean {near!r}?"
    first = next(_some_ids(folder), None)
    return f"{text}, for example {first!r}" if first else f"{text}; this file holds no game"


def _nearest(given: str, settings: Mapping[str, Any]) -> str | None:
    """The id whose parts are those of the settings that look most like ``given``; None if its parts cannot be told."""
    parts = given.split("|")
    if len(parts) != 5:
        return None
    agent, seat, rho, opponent, scenario = (part.strip() for part in parts)
    asked = ["-", *map(rho_text, settings.get("rho", []))]
    with contextlib.suppress(ValueError):
        rho = rho_text(float(rho))
    number = min(int(scenario), settings.get("games", 1) - 1) if scenario.isdecimal() else 0
    known = [(agent, settings.get("agents", [])), (seat, settings.get("seats", [])), (rho, asked)]
    known.append((opponent, settings.get("opponents", [])))
    chosen = [next(iter(difflib.get_close_matches(part, names, n=1, cutoff=0.0)), part) for part, names in known]
    return "|".join([*chosen, f"{number:09d}"])


def _some_ids(folder: Path) -> Iterator[str]:
    import pyarrow.dataset as ds

    found = ds.dataset(folder / EPISODES, format="parquet").head(1, columns=["episode_id"])
    yield from found["episode_id"].to_pylist()


# ── turn by turn ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Turn:
    """One move.

    Attributes:
        turn: of both seats together, from 1.
        seat: who moved, ``buyer`` or ``seller``.
        action: ``offer``, ``accept``, or ``wasted`` for a move that the rules did not allow.
        price: what was offered or accepted; None on a wasted turn.
        rho: where that price lies in the ZOPA, 0 at the seller's limit and 1 at the buyer's; None where there is none.
        replaced: what put another move in the place of the agent's own: ``guard``, or ``fallback`` where its answer was no
            move; None on all other turns.
        decided_accept: whether the agent had decided to accept; None where nothing was replaced.
        decided_price: what it would have offered; None where nothing was replaced, or nothing was offered.
    """

    turn: int
    seat: str
    action: str
    price: float | None
    rho: float | None
    replaced: str | None = None
    decided_accept: bool | None = None
    decided_price: float | None = None

    @property
    def move(self) -> tuple[str, str, float | None]:
        """What both sides saw of it."""
        return self.seat, self.action, self.price


def turns(game: Game) -> list[Turn]:
    """The moves of a game, in order."""
    offered = dict(zip(game["offer_turns"], game["offers"], strict=True))
    raw_turns, *raw = (game.get(name) or () for name in ("raw_turns", "raw_accepts", "raw_prices"))
    decided = dict(zip(raw_turns, zip(*raw, strict=True), strict=True))
    found = []
    for turn in range(1, game["turns"] + 1):
        accepted = game["agreement"] and turn == game["turns"]
        price = game["price"] if accepted else offered.get(turn)
        action = ACCEPT if accepted else WASTED if price is None else OFFER
        own = (FALLBACK if decided[turn] == (False, None) else GUARD, *decided[turn]) if turn in decided else ()
        found.append(Turn(turn, mover(game, turn), action, price, position(game, price), *own))
    return found


def mover(game: Game, turn: int) -> str:
    """Whose turn it was; the starter moves on odd turns."""
    other = "seller" if game["starter"] == "buyer" else "buyer"
    return str(game["starter"] if turn % 2 else other)


def position(game: Game, price: float | None) -> float | None:
    """Where a price lies in the ZOPA of a game, as ρ; None without a price or a ZOPA."""
    if price is None or game["buyer_max"] <= game["seller_min"]:
        return None
    return float(settlement(price, game["buyer_max"], game["seller_min"]))
