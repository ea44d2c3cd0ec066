"""`experiments.train --labels asked`: adapters learn what trained teachers decided, as answers to what they were asked."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_teachers import saved
from test_train_command import settings

from bargain_env.errors import InputError
from experiments import collect, prepare, train
from experiments.corpus.teachers import asked_rho
from experiments.training_rows import heldout_rows, row_weights, train_rows
from hyperlora.checkpoint import CONFIG, read_config, read_state
from hyperlora.data import read_steps


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Prepared games in which half of the seats were a teacher's."""
    out = tmp_path_factory.mktemp("taught")
    teacher = saved(out / "t", seed=1)  # one that misses a deal now and then
    collect.run(collect.Settings(episodes=80, scenario="paper", teacher_share=0.5, teacher=teacher, out=out / "raw",
                                 quiet=True))  # fmt: skip
    prepare.run(prepare.Settings(out / "raw", out / "ready", eval_share=0.2, quiet=True))
    return out / "ready"


def written(table, folder):
    folder.mkdir()
    pq.write_table(table, folder / "steps.parquet")
    return folder


def rows(data, **changes):
    return train_rows(settings(data, "x", "y", **changes))


def test_a_decision_is_labelled_with_what_was_asked(taught):
    whole, asked = rows(taught), rows(taught, labels="asked")
    names = [name for name in whole["strategy"].to_pylist() if name.startswith("teacher(")]
    assert 0.2 * whole.num_rows < asked.num_rows < 0.8 * whole.num_rows
    assert asked["strategy"].to_pylist() == names
    assert asked["rho_train"].to_pylist() == [float(name[len("teacher(target=") : -1]) for name in names]
    assert asked.schema == whole.schema
    mine = whole.filter(pa.array([name.startswith("teacher(") for name in whole["strategy"].to_pylist()]))
    assert mine["rho_train"].to_pylist() != asked["rho_train"].to_pylist()
    assert asked.drop_columns("rho_train").equals(mine.drop_columns("rho_train"))
    assert -1 in mine["rho_train"].to_pylist(), "games without a deal are answers too"
    assert rows(taught, labels="outcome").equals(whole)


def test_fewer_rows_are_some_of_those(taught):
    def decisions(**changes):
        table = rows(taught, labels="asked", **changes)
        return list(zip(table["trajectory_id"].to_pylist(), table["turn"].to_pylist(), strict=True))

    few = decisions(max_train_samples=20)
    assert len(few) == 20
    assert set(few) < set(decisions())


def test_it_is_trained_and_evaluated_on_them(taught, tiny_base, tmp_path):
    done = {name: train.run(settings(taught, tiny_base, tmp_path / name, labels=name, max_steps=3, play_games=0))
            for name in ("outcome", "asked")}  # fmt: skip
    runs = {name: read_config(path)["run"] for name, path in done.items()}
    assert {name: run["labels"] for name, run in runs.items()} == {name: name for name in done}
    a, b = (read_state(path) for path in done.values())
    assert any(not torch.equal(a[key], b[key]) for key in a)
    table = read_steps(taught, "eval")
    mine = int((~np.isnan(asked_rho(table["strategy"].to_numpy()))).sum())
    assert 0 < mine < table.num_rows
    held_out = {name: heldout_rows(settings(taught, "x", "y", labels=name), _tokenizer(tiny_base)) for name in done}
    assert {name: len(some.dataset) for name, some in held_out.items()} == {"outcome": table.num_rows, "asked": mine}
    goals = asked_rho(table["strategy"].to_numpy()).astype(np.float32)
    assert set(held_out["asked"].dataset.rho.tolist()) <= set(goals.tolist())


def _tokenizer(base):
    from hyperlora import load_base

    return load_base(str(base))[1]


def test_data_without_teachers_are_refused(training_data, tiny_base, tmp_path):
    train.run(settings(training_data, tiny_base, tmp_path / "usual", max_steps=1, eval_every=0))
    with pytest.raises(InputError, match=r"no player in .* was asked for anything; collect games with --teacher"):
        train.run(settings(training_data, tiny_base, tmp_path / "out", labels="asked"))
    assert not (tmp_path / "out").exists()


def test_data_that_do_not_say_who_played_are_refused(taught, tiny_base, tmp_path):
    table = pq.read_table(taught / "steps.parquet")
    mute = written(table.drop_columns("strategy"), tmp_path / "mute")
    rows(mute)
    with pytest.raises(InputError, match="does not say who played"):
        train.run(settings(mute, tiny_base, tmp_path / "out", labels="asked"))
    nobody = table.set_column(table.column_names.index("strategy"), "strategy", pa.nulls(table.num_rows, pa.string()))
    with pytest.raises(InputError, match=r"no player in .* was asked"):
        train.run(settings(written(nobody, tmp_path / "nobody"), tiny_base, tmp_path / "out", labels="asked"))


def test_without_teachers_among_the_held_back_there_is_no_evaluation(taught, tiny_base, tmp_path, capsys):
    table = pq.read_table(taught / "steps.parquet")
    held = np.array(table["split"].to_pylist()) == "eval"
    names = np.where(held, "fair", np.array(table["strategy"].to_pylist(), dtype=object)).tolist()
    data = written(table.set_column(table.column_names.index("strategy"), "strategy", pa.array(names)), tmp_path / "d")
    train.run(settings(data, tiny_base, tmp_path / "out", labels="asked", max_steps=1, quiet=False))
    assert "no evaluation: the data have no rows of split 'eval' whose player was asked" in capsys.readouterr().out


def test_a_resumed_run_has_the_same_labels(taught, tiny_base, tmp_path):
    options = {"max_steps": 2, "save_every": 1, "eval_every": 0}
    for name, other in (("asked", "outcome"), ("outcome", "asked")):
        whole = train.run(settings(taught, tiny_base, tmp_path / name, labels=name, **options))
        step = tmp_path / name / "step-000001"
        with pytest.raises(InputError, match=f"labels '{name}' → '{other}'"):
            train.run(settings(taught, tiny_base, tmp_path / "x", labels=other, resume=str(step), **options))
        again = train.run(
            settings(taught, tiny_base, tmp_path / f"{name}-again", labels=name, resume=str(step), **options)
        )
        states = [read_state(path) for path in (whole, again, step)]
        assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_runs_that_did_not_say_had_outcomes(taught, tiny_base, tmp_path):
    options = {"max_steps": 2, "save_every": 1, "eval_every": 0}
    train.run(settings(taught, tiny_base, tmp_path / "a", **options))
    step = tmp_path / "a" / "step-000001"
    config = json.loads((step / CONFIG).read_text())
    assert config["run"].pop("labels") == "outcome"
    (step / CONFIG).write_text(json.dumps(config))
    train.run(settings(taught, tiny_base, tmp_path / "b", resume=str(step), **options))
    with pytest.raises(InputError, match="labels 'outcome' → 'asked'"):
        train.run(settings(taught, tiny_base, tmp_path / "c", labels="asked", resume=str(step), **options))


def test_first_and_last_decisions_weigh_what_is_said(taught):
    """Turns 1 and 2 are first; a seat that moves with one turn or none left does not move again."""
    chosen = settings(taught, "x", "y", opening_weight=3.0, closing_weight=5.0)
    table = read_steps(taught)
    turn, left = table["turn"].to_numpy(), table["turns_remaining"].to_numpy()
    assert (left == table["max_turns"].to_numpy() - turn).all()
    weights = row_weights(chosen, table.drop_columns(["turns_remaining"]))  # tables of others need not have it
    assert set(weights[turn > 2][left[turn > 2] > 1]) == {1.0}
    assert set(weights[turn <= 2]) == {3.0}
    assert set(weights[left <= 1]) == {5.0}
    place = table.column_names.index("max_turns")
    short = table.slice(0, 1).set_column(place, "max_turns", table["turn"].slice(0, 1))
    assert row_weights(chosen, short).tolist() == [15.0 if turn[0] <= 2 else 5.0]
