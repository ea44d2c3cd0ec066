"""Minari data sets, one for each seat and split: games as the seat's Gymnasium environment would have shown them.

Minari keeps a file and its metadata for each episode. Its writer is used as it is, except that it would measure the whole
folder again after every episode; what it would find last is written once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from bargain_env import Seat
from bargain_env.actions import ACCEPT, action_mask, grid
from bargain_env.errors import InputError
from bargain_env.settings import GameSettings

from .decisions import Decisions, numbers, playable, scenario_of
from .source import SPLITS, Block, Source
from .transitions import box_actions

try:
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage
except ModuleNotFoundError as error:
    raise InputError("--to minari needs Minari: pip install -e '.[export]' -c constraints.txt") from error

_NOTE = {
    "box": "Actions are exact to 1e-7 of the range: with a tick of 0.01 the environment makes the very same offers of them.",
    "grid": "Actions are the nearest prices of the grid, while observations and rewards are those of the prices played.",
}
VERSION = 0
"""Version in the names of the data sets; raise it when the same input gives other data."""


def dataset_id(seat: Seat, split: str) -> str:
    """The name for ``minari.load_dataset``."""
    return f"bargain-{seat.label}-{split}-v{VERSION}"


class SeatSets:
    """Writes the data sets of both seats and all splits below a folder, to which ``MINARI_DATASETS_PATH`` is to be set.

    Args:
        folder: where to.
        game: the options of ``Bargain-v0`` for `recover_environment`: action mode, prices on the grid, turns, preset.
    """

    def __init__(self, folder: Path, game: GameSettings) -> None:
        self.folder, self.game = folder, game
        self.episodes: dict[str, int] = {}
        self.left_out = 0
        self._storages: dict[str, Any] = {}

    def append(self, block: Block, split: str) -> None:
        """Add the games of ``block``, which are of ``split``.

        Left out and counted are games that are not `playable`, and a seat's side of a game in which one of its moves is not
        in the action space: an offer outside the range and, in box mode, one that crosses the standing offer.
        """
        kept = playable(block)
        self.left_out += 2 * int((~kept).sum())
        block = block.take(kept)
        if not len(block):
            return
        made, games = Decisions.of(block), block.episodes.to_pylist()
        boxed = self.game.action_mode == "box"
        actions = box_actions(made) if boxed else _grid_actions(made, self.game.n_prices)
        masks = None if boxed else _masks(made, self.game.n_prices)
        for seat in Seat:
            mine = np.flatnonzero(made.seat == seat)
            buffers, about = [], []
            for game, rows in zip(games, np.split(mine, np.flatnonzero(made.done[mine])[:-1] + 1), strict=True):
                if np.isnan(actions[rows]).any():
                    self.left_out += 1
                    continue
                buffers.append(_buffer(made, rows, actions[rows], masks, {"scenario": asdict(scenario_of(game))}))
                about.append({
                    "trajectory_id": game["trajectory_id"],
                    "strategy": game[f"{seat.label}_strategy"],
                    "opponent_strategy": game[f"{seat.other.label}_strategy"],
                })  # fmt: skip
            if buffers:
                self._write(dataset_id(seat, split), seat, buffers, about)

    def close(self) -> dict[str, Any]:
        """Say how large each data set is; returns what a manifest says of them."""
        rows, games = {}, {}
        for name, storage in self._storages.items():
            size = sum(path.stat().st_size for path in Path(storage.data_path).rglob("*.parquet")) / 1e6
            storage.update_metadata({"dataset_size": round(size, 1)})
            rows[name] = {split: storage.total_steps for split in SPLITS if name.endswith(f"-{split}-v{VERSION}")}
            games[name] = storage.total_episodes
        return {"rows": rows, "games": games, "left_out": self.left_out}

    def _write(self, name: str, seat: Seat, buffers: list[Any], about: list[dict[str, Any]]) -> None:
        if name not in self._storages:
            self._storages[name], self.episodes[name] = self._new(name, seat), 0
        first = self.episodes[name]
        self._storages[name].update_episodes(buffers)
        self._storages[name].update_episode_metadata(about, range(first, first + len(about)))
        self.episodes[name] += len(about)

    def _new(self, name: str, seat: Seat) -> Any:
        path = self.folder / name / "data"
        path.mkdir(parents=True)
        spec = gymnasium.spec("Bargain-v0")
        spec = type(spec).from_json(spec.to_json())  # a copy, whose arguments may be set
        spec.kwargs = {"seat": seat.label, **asdict(self.game)}
        storage = MinariStorage.new(
            path, self.game.observation_space(), self.game.action_space(), env_spec=spec, data_format="parquet"
        )
        storage.get_size = lambda: 0.0  # it would read the whole folder for every episode
        about = f"Recorded games over one price, as the {seat.label} saw them. {_NOTE[self.game.action_mode]}"
        storage.update_metadata({"dataset_id": name, "minari_version": minari.__version__, "description": about})
        return storage


def _grid_actions(made: Decisions, n_prices: int) -> NDArray[np.float64]:
    """``[N]`` each decision as `bargain_env.actions.encode` spells it; NaN for an offer outside the range."""
    steps, out = made.block.steps, np.where(made.accept, float(ACCEPT), np.nan)
    ranges = np.stack([numbers(steps, "price_low"), numbers(steps, "price_high")], axis=1)
    known, which = np.unique(ranges, axis=0, return_inverse=True)
    for k, (low, high) in enumerate(known.tolist()):
        prices = grid(low, high, n_prices)
        at = np.flatnonzero((which.reshape(-1) == k) & (made.price >= low) & (made.price <= high))
        above = np.clip(np.searchsorted(prices, made.price[at]), 1, n_prices - 1)
        nearer = np.abs(prices[above] - made.price[at]) < np.abs(prices[above - 1] - made.price[at])
        out[at] = above + nearer
    return out


def _masks(made: Decisions, n_prices: int) -> NDArray[np.int8]:
    """``[N, 1 + K]`` what the seat that decides may do."""
    opens, answers = (action_mask(True, may_accept, n_prices) for may_accept in (False, True))
    return np.where(np.isnan(numbers(made.block.steps, "last_offer_price"))[:, None], opens, answers)


def _buffer(
    made: Decisions, rows: NDArray[np.int64], actions: NDArray[Any], masks: NDArray[np.int8] | None, options: Any
) -> Any:
    """One seat's game: ``rows`` are its decisions, ``actions`` what it did then."""
    observations: Any = np.concatenate([made.seen[rows], made.then[rows[-1:]]])
    if masks is None:
        actions = actions[:, None]
    else:  # nothing is legal when the game is over
        observations = {"observation": observations, "action_mask": np.pad(masks[rows], ((0, 1), (0, 0)))}
        actions = actions.astype(np.int64)
    never = np.zeros(len(rows), dtype=bool)
    return EpisodeBuffer(
        options=options,
        observations=observations,
        actions=actions,
        rewards=made.reward[rows].tolist(),
        terminations=made.done[rows].tolist(),
        truncations=never.tolist(),
    )


def write(game: GameSettings, folder: Path, source: Source, blocks: Iterable[Block]) -> dict[str, Any]:
    """Write all of ``blocks``; returns the ``rows`` of each data set, its decisions, and how many sides were left out.

    Args:
        game: options of ``Bargain-v0`` but for ``max_turns``, which is the largest in the data.
        folder: where to.
        source: of the blocks.
        blocks: the games.
    """
    sets = SeatSets(folder, replace(game, max_turns=max(2, source.longest())))
    for block in blocks:
        for split in SPLITS:
            sets.append(block.of_split(split), split)
    return sets.close()
