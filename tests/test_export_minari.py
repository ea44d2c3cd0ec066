"""Minari loads what `experiments.export` wrote, and stepping the environment it recovers gives the same observations."""

import hashlib
import json

import numpy as np
import pytest
from exported import contents, ready, rows

import agents  # noqa: F401  (knows opponents by name)
from bargain_env import Moves, Scenario, Seat
from bargain_env.actions import encode, grid
from bargain_env.core import Move
from bargain_env.errors import InputError
from bargain_env.single import BargainEnv
from experiments import export

WHY = "Minari is an extra: pip install -e '.[export]' -c constraints.txt"
minari = pytest.importorskip("minari", reason=WHY)
SPLITS = ("train", "eval", "test")
N_PRICES = 27


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return ready(tmp_path_factory.mktemp("minari"), episodes=160)


def run(data, out, **options):
    return export.run(export.Settings(data=data, to="minari", out=out, quiet=True, **options))


@pytest.fixture(scope="module")
def boxed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("boxed") / "sets"
    return out, run(data, out)


@pytest.fixture(scope="module")
def gridded(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("gridded") / "sets"
    return out, run(data, out, action_mode="grid", n_prices=N_PRICES, scenario="paper")


def load(out, seat, split, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(out))
    return minari.load_dataset(f"bargain-{seat}-{split}-v0")


class Replay:
    """Plays what the other seat played in a recorded game."""

    name = "replay"

    def __init__(self, steps):
        self.moves = {
            step["turn"]: (step["target_action"] == "ACCEPT", step["target_price"] or np.nan) for step in steps
        }

    def reset(self, games):
        pass

    def act(self, view):
        accept, price = self.moves[view.turn]
        return Moves(accept=np.array([accept]), price=np.array([price]))


def of_games(table):
    games = {}
    for row in table:
        games.setdefault(row["trajectory_id"], []).append(row)
    return games


@pytest.mark.parametrize("seat", ["buyer", "seller"])
def test_stepping_the_recovered_environment_shows_the_recorded_games(data, boxed, seat, monkeypatch):
    found = {}
    for split in SPLITS:
        dataset = load(boxed[0], seat, split, monkeypatch)
        games, told = (
            of_games(rows(data, "steps", split)),
            {g["trajectory_id"]: g for g in rows(data, "episodes", split)},
        )
        abouts = list(dataset.storage.get_episode_metadata(dataset.episode_indices))
        for episode, about in zip(dataset, abouts, strict=True):
            game, steps = told[about["trajectory_id"]], games[about["trajectory_id"]]
            other = Replay([step for step in steps if step["role"] != seat])
            env = dataset.recover_environment(opponent=other)
            assert env.observation_space == dataset.observation_space
            assert env.action_space == dataset.action_space
            assert env.unwrapped.seat.label == seat
            scenario = Scenario(
                **{**about["options"]["scenario"], "starter": Seat(about["options"]["scenario"]["starter"])}
            )
            assert (scenario.id, scenario.buyer_max, scenario.seller_min) == (
                game["scenario_id"],
                game["buyer_max"],
                game["seller_min"],
            )
            assert (about["strategy"], about["opponent_strategy"]) == (
                game[f"{seat}_strategy"],
                game[f"{'seller' if seat == 'buyer' else 'buyer'}_strategy"],
            )
            seen, _ = env.reset(options={"scenario": scenario})
            for i, action in enumerate(episode.actions):
                assert seen.tobytes() == episode.observations[i].tobytes()
                seen, reward, terminated, truncated, _ = env.step(action)
                assert reward == episode.rewards[i]
                assert (terminated, truncated) == (episode.terminations[i], episode.truncations[i])
            assert terminated
            assert seen.tobytes() == episode.observations[-1].tobytes()
            played = [step for step in steps if step["role"] == seat]
            assert list(env.unwrapped.session.state.prices[scenario.starter != env.unwrapped.seat :: 2]) == [
                step["target_price"] for step in played
            ]
            found[about["trajectory_id"]] = played
        assert len(dataset) == boxed[1]["games"][dataset.id]
        assert dataset.total_steps == sum(len(episode.actions) for episode in dataset)
    everything = [name for split in SPLITS for name in of_games(rows(data, "steps", split))]
    assert 0.9 * len(everything) < len(found) <= len(everything)


def test_what_is_left_out_crosses_the_standing_offer(data, boxed, monkeypatch):
    missing = 0
    for seat in ("buyer", "seller"):
        for split in SPLITS:
            dataset = load(boxed[0], seat, split, monkeypatch)
            kept = {a["trajectory_id"] for a in dataset.storage.get_episode_metadata(dataset.episode_indices)}
            for name, steps in of_games(rows(data, "steps", split)).items():
                pairs = [(s["target_price"], s["last_offer_price"]) for s in steps if s["role"] == seat]
                priced = [(p, last) for p, last in pairs if p is not None and last is not None]
                crosses = any(p >= last if seat == "buyer" else p <= last for p, last in priced)
                assert (name in kept) != crosses
                missing += crosses
    assert missing == boxed[1]["left_out"] > 0


def test_the_grid_takes_every_game_and_the_nearest_price(data, gridded, monkeypatch):
    prices = grid(200.0, 1500.0, N_PRICES)
    assert gridded[1]["left_out"] == 0
    for split in SPLITS:
        games = of_games(rows(data, "steps", split))
        for seat in ("buyer", "seller"):
            dataset = load(gridded[0], seat, split, monkeypatch)
            assert len(dataset) == len(games)
            env = dataset.recover_environment().unwrapped
            assert (env.session.settings.n_prices, env.session.settings.scenario) == (N_PRICES, "paper")
            for episode, steps in zip(dataset, games.values(), strict=True):
                played = [step for step in steps if step["role"] == seat]
                moves = [Move(step["target_price"] is None, step["target_price"] or np.nan) for step in played]
                assert episode.actions.tolist() == [encode(move, prices) for move in moves]
                seen = episode.observations
                assert all(
                    dataset.observation_space.contains({k: v[i] for k, v in seen.items()}) for i in range(len(moves))
                )
                may_accept = [step["last_offer_price"] is not None for step in played]
                assert seen["action_mask"][:-1, 0].tolist() == may_accept
                assert (seen["action_mask"][:-1, 1:] == 1).all()
                assert not seen["action_mask"][-1].any()


def test_ties_on_the_grid_go_to_the_lower_price():
    from types import SimpleNamespace

    import pyarrow as pa

    from experiments.exporting.minari_layout import _grid_actions

    offers = np.array([200.0, 225.0, 225.01, 250.0, 1475.0, 1500.0, 199.0, 1501.0, np.nan])
    n = len(offers)
    steps = pa.table({"price_low": np.full(n, 200.0), "price_high": np.full(n, 1500.0)})
    made = SimpleNamespace(block=SimpleNamespace(steps=steps), accept=np.isnan(offers), price=offers)
    wanted = [encode(Move(False, p), grid(200.0, 1500.0, N_PRICES)) for p in offers[:6]]
    assert wanted[1] != wanted[2]
    np.testing.assert_array_equal(_grid_actions(made, N_PRICES), [*wanted, np.nan, np.nan, 0])


def test_observations_of_the_grid_are_those_of_its_environment(data, gridded, monkeypatch):
    """The mask apart, what is seen is what was played: the same numbers as in box mode."""
    dataset = load(gridded[0], "seller", "eval", monkeypatch)
    abouts = list(dataset.storage.get_episode_metadata(dataset.episode_indices))
    games = of_games(rows(data, "steps", "eval"))
    for episode, about in zip(dataset, abouts, strict=True):
        values = about["options"]["scenario"]
        other = Replay([step for step in games[about["trajectory_id"]] if step["role"] == "buyer"])
        env = BargainEnv(seat="seller", action_mode="grid", n_prices=N_PRICES, opponent=other)
        seen, _ = env.reset(options={"scenario": Scenario(**{**values, "starter": Seat(values["starter"])})})
        for name, value in seen.items():
            assert value.tobytes() == episode.observations[name][0].tobytes()
    assert len({about["options"]["scenario"]["starter"] for about in abouts}) == 2


def test_the_same_input_gives_the_same_bytes(data, boxed, tmp_path):
    again = run(data, tmp_path / "again")
    few = run(data, tmp_path / "few", episodes=20)
    assert few != again
    assert contents(tmp_path / "again") == contents(boxed[0])
    files = contents(boxed[0])
    assert json.loads(files.pop("manifest.json")) == again
    assert {name: hashlib.sha256(c).hexdigest() for name, c in files.items()} == {
        name: told["sha256"] for name, told in again["files"].items()
    }


def test_local_datasets_are_listed_with_their_counts(boxed, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(boxed[0]))
    listed = minari.list_local_datasets()
    assert sorted(listed) == sorted(f"bargain-{seat}-{split}-v0" for seat in ("buyer", "seller") for split in SPLITS)
    for name, about in listed.items():
        assert about["total_episodes"] == boxed[1]["games"][name]
        assert [about["total_steps"]] == list(boxed[1]["rows"][name].values())
        assert about["data_format"] == "parquet"
        assert 0 <= about["dataset_size"] < 5


def test_without_minari_the_command_says_what_to_install(data, tmp_path, monkeypatch):
    import sys

    import experiments.exporting

    monkeypatch.delitem(sys.modules, "experiments.exporting.minari_layout", raising=False)
    monkeypatch.delattr(experiments.exporting, "minari_layout", raising=False)
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(InputError, match="needs Minari: pip install"):
        run(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_game_options_are_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(InputError, match="unknown scenario"):
        run(data, tmp_path / "out", scenario="papr")
    with pytest.raises(InputError, match="n_prices 1 must be"):
        run(data, tmp_path / "out", action_mode="grid", n_prices=1)
    assert not (tmp_path / "out").exists()
