"""Hugging Face datasets loads what `experiments.export` wrote, and every value is that of the source."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from exported import ready, rows

from bargain_env.errors import InputError
from experiments import export, verify

WHY = "datasets is an extra: pip install -e '.[export]' -c constraints.txt"
datasets = pytest.importorskip("datasets", reason=WHY)
SPLITS = ("train", "eval", "test")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return ready(tmp_path_factory.mktemp("datasets"))


@pytest.fixture
def load(data, tmp_path):
    """Export, and load as a user would."""

    def load(to, name=None, **options):
        export.run(export.Settings(data=data, to=to, out=tmp_path / to, quiet=True, **options))
        return datasets.load_dataset(str(tmp_path / to), name, cache_dir=str(tmp_path / "cache"))

    return load


def test_steps_and_episodes_come_back_value_for_value(data, load):
    for name in (None, "steps", "episodes"):
        found = load("datasets", name)
        assert list(found) == list(SPLITS)
        for split in SPLITS:
            wanted = rows(data, name or "steps", split)
            assert wanted
            assert found[split].to_list() == wanted
    assert rows(data, "steps", "eval") != rows(data, "steps", "test")
    assert found["train"].column_names == pq.read_schema(data / "episodes.parquet").names


@pytest.mark.parametrize(("to", "table"), [("datasets", "steps"), ("trl", "prompts"), ("transitions", "transitions")])
def test_verify_knows_the_exported_tables(data, tmp_path, to, table):
    out = tmp_path / "out"
    export.run(export.Settings(data=data, to=to, out=out, quiet=True))
    assert verify.run(verify.Settings(data=out, quiet=True))["problems"] == []
    shard = out / table / "train-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match="train-00000"):
        verify.run(verify.Settings(data=out, quiet=True))


def test_a_split_without_games_is_not_named(tmp_path, data):
    out = tmp_path / "few"
    manifest = export.run(export.Settings(data=data, to="datasets", out=out, episodes=1, quiet=True))
    (only,) = manifest["rows"]["episodes"]
    found = datasets.load_dataset(str(out), "episodes", cache_dir=str(tmp_path / "cache"))
    assert list(found) == [only]
    assert found[only].to_list() == pq.read_table(data / "episodes.parquet").slice(0, 1).to_pylist()


def test_transitions_follow_from_the_tables(data, load):
    found = load("transitions")
    games = {game["trajectory_id"]: game for split in SPLITS for game in rows(data, "episodes", split)}
    for split in SPLITS:
        steps, made = rows(data, "steps", split), found[split].to_list()
        assert len(made) == len(steps)
        last = {(m["trajectory_id"], m["seat"]): i for i, m in enumerate(made)}
        seen = {}
        for i, (row, step) in enumerate(zip(made, steps, strict=True)):
            game, key = games[step["trajectory_id"]], (step["trajectory_id"], step["role"])
            utility = game[f"{step['role']}_utility"]
            done = last[key] == i
            assert row["seat"] == step["role"]
            assert (row["trajectory_id"], row["turn"]) == (step["trajectory_id"], step["turn"])
            assert row["accept"] == (step["target_action"] == "ACCEPT")
            assert row["price"] == step["target_price"]
            assert row["done"] == done
            assert (row["reward"], row["return_to_go"]) == (utility if done else 0.0, utility)
            assert (row["behavior_policy"], row["opponent_policy"]) == (step["strategy"], step["opponent_strategy"])
            before = seen.get(key)
            assert row["step"] == (0 if before is None else before["step"] + 1)
            assert before is None or before["next_observation"] == row["observation"]
            seen[key] = row
    assert any(row["reward"] for row in made)
    assert any(row["return_to_go"] != row["reward"] for row in made)


def test_actions_are_spelled_as_the_environment_reads_them(data, load):
    from bargain_env.actions import decode_box
    from bargain_env.core import Seat, quantise

    steps, made = rows(data, "steps", "train"), load("transitions")["train"].to_list()
    crossing = 0
    for step, row in zip(steps, made, strict=True):
        seat = Seat[step["role"].upper()]
        standing = np.nan if step["last_offer_price"] is None else step["last_offer_price"]
        if row["action"] is None:
            crossing += 1
            good = step["target_price"] >= standing if seat == Seat.BUYER else step["target_price"] <= standing
            assert good
            continue
        accept, price = decode_box(row["action"], step["price_low"], step["price_high"], seat, standing)
        assert bool(accept) == row["accept"]
        assert row["accept"] or quantise(float(price), 0.01) == row["price"]
    assert 0 < crossing < 0.05 * len(steps)


def test_only_strategies_without_chance_have_a_known_probability(load):
    import agents

    made = load("transitions")["train"]
    known = {(row["behavior_policy"], row["behavior_probability"]) for row in made}
    chance = {name for name, p in known if p is None}
    assert chance
    assert {name for name, p in known if p == 1.0} == {name for name, _ in known} - chance
    assert all(agents.describe(name).stochastic == (name in chance) for name, _ in known)


def test_prompts_are_what_training_tokenises(data, load):
    from hyperlora.base import load_base
    from hyperlora.data import NegotiationDataset, read_steps
    from hyperlora.tokens import encode

    tokenizer = load_base("janus-nano")[1]
    texts = {}
    for prompt_format, k in ((2, 8), (3, 3), (4, 8)):
        found = load("trl", prompt_format=prompt_format, k_history=k)["eval"]
        table = read_steps(data, "eval")
        trained = NegotiationDataset(table, tokenizer, k_history=k, prompt_format=prompt_format)
        assert len(found) == len(trained) == table.num_rows
        ends = [int(tokenizer.eos_token_id)]
        for i, row in enumerate(found):
            prompt, answer = encode(tokenizer, [row["prompt"], row["completion"]])
            assert prompt + answer + ends == trained[i]["input_ids"].tolist()
            assert trained.prompt_lengths[i] == len(prompt)
            assert np.float32(row["rho"]) == trained.rho[i]
            assert (row["trajectory_id"], row["turn"]) == (
                table["trajectory_id"][i].as_py(),
                table["turn"][i].as_py(),
            )
        texts[prompt_format] = found["prompt"]
    assert texts[2] != texts[3]


def test_asked_labels_keep_the_decisions_of_those_who_were_asked(data):
    from experiments.exporting import prompts, source

    block = next(source.Source(data).blocks())
    names = ["teacher(target=0.3712)" if role == "buyer" else "fair" for role in block.steps["role"].to_pylist()]
    column = block.steps.column_names.index("strategy")
    block = source.Block(block.episodes, block.steps.set_column(column, "strategy", [names]), block.first)
    (asked, lost), (all_of_them, none) = (prompts.rows(block, kind, 2, 8) for kind in ("asked", "outcome"))
    asked, all_of_them = asked["prompts"].to_pylist(), all_of_them["prompts"].to_pylist()
    mine = [row for row, name in zip(all_of_them, names, strict=True) if name != "fair"]
    assert (lost, none) == (names.count("fair"), 0)
    assert [row["completion"] for row in asked] == [row["completion"] for row in mine]
    assert all(row["prompt"].startswith("<RHO> 0.3712\n") for row in asked)
    assert [row["prompt"] for row in asked] != [row["prompt"] for row in mine]


def test_the_card_explains_every_column(data, tmp_path):
    for to in ("datasets", "trl", "transitions"):
        export.run(export.Settings(data=data, to=to, out=tmp_path / to, quiet=True))
        card = (tmp_path / to / "README.md").read_text(encoding="utf-8")
        for file in (tmp_path / to).rglob("*.parquet"):
            for field in pq.read_schema(file):
                assert f"| `{field.name}` |" in card
                assert field.metadata[b"description"].decode() in card


def test_no_folder_is_taken_for_another_of_the_same_name(data, tmp_path):
    """The library's cache does not look at the files; see `experiments.exporting.card.card`."""
    first = []
    for k, games in enumerate((20, 30)):
        out = tmp_path / str(k) / "hub"
        export.run(export.Settings(data=data, to="datasets", out=out, episodes=games, quiet=True))
        found = datasets.load_dataset(str(out), "episodes", cache_dir=str(tmp_path / "cache"))
        assert sum(len(part) for part in found.values()) == games
        first.append(found["train"][0])
    assert first[0] == first[1]
