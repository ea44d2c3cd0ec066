"""Shards: a plan is cut into them and put together again without a row in memory too many; what is damaged is found out."""

import functools
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tournament_players import Taker, dial

import agents
from agents import registry
from bargain_env import PRESETS, Seat
from bargain_env.errors import InputError
from experiments.match import arena, identity, merge, results, store
from experiments.match.contestants import script
from experiments.match.identity import Identity, identify
from experiments.match.shard_player import ShardPlayer
from experiments.match.store import ShardStore


@pytest.fixture(autouse=True)
def zoo(monkeypatch):
    """Two test opponents, and shards of few games."""
    monkeypatch.setattr(registry, "_REGISTRY", {})
    agents.register("easy", Taker, family="taker")
    agents.register("easy2", Taker, family="taker", defaults={"picky": 1.0})
    Taker.seen = []
    monkeypatch.setattr(arena, "BLOCK_ROWS", 30)
    monkeypatch.setattr(arena, "SCRIPT_ROWS", 20)
    monkeypatch.setattr(arena, "MOST_SHARDS", 4)


def players():
    return [script("easy2"), dial(), dial("a"), script("easy")]


def plan(**changes):
    grid = {Seat.BUYER: (0.05, 0.055, 0.5), Seat.SELLER: (0.3, 0.5)}  # "0.055" sorts before "0.05|"
    base = {"opponents": ("easy2", "easy"), "rho": grid, "games": 23, "seats": tuple(Seat), "preset": PRESETS["paper"]}
    return arena.Plan(**{**base, **changes})


IDENTITY = Identity({"settings": {"games": 23}})


def filled(out, one=None, whoever=None, identified=IDENTITY):
    """A store in ``out`` with every shard of a plan, its warnings, the player."""
    out.mkdir(exist_ok=True)
    player, warnings = ShardPlayer(whoever or players(), one or plan(), identified), []
    kept = ShardStore(out, identified, player.shards, warnings.append)
    for number in range(len(player.shards)):
        kept.put(number, player.play(number).content)
    return kept, warnings, player


def reopened(out, player, identified=IDENTITY, **options):
    warnings = []
    kept = ShardStore(out, identified, player.shards, warnings.append, **options)
    return kept, kept.resume(), warnings


# ── the cut ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_shards_are_the_whole_plan_once():
    cut = arena.shards(players(), plan())
    for team in range(4):
        for seat in Seat:
            some = [s for s in cut if (s.team, s.seat) == (team, seat)]
            # 2 cells: blocks of 10. 6 cells, a buyer at 3 rho: blocks of 5, two a shard. 4 cells: blocks of 7.
            assert [s.count for s in some] == ([7, 7, 7, 2] if team in (1, 2) and seat == Seat.SELLER else [10, 10, 3])
            scenarios = [n for s in some for n in range(s.first, s.first + s.count)]
            assert scenarios == list(range(23))
    assert len({IDENTITY.of(shard) for shard in cut}) == len(cut)
    assert IDENTITY.of(cut[0]) != Identity({"settings": {"games": 24}}).of(cut[0])


def test_shards_grow_where_there_would_be_too_many():
    cut = arena.shards([dial()], plan(games=100))
    assert [(s.first, s.count, s.block) for s in cut if s.seat == Seat.BUYER] == [
        (0, 25, 5), (25, 25, 5), (50, 25, 5), (75, 25, 5)
    ]  # fmt: skip


def test_a_shard_does_not_depend_on_the_others():
    cut, all_teams = arena.shards(players(), plan()), arena.teams(players())
    whole = arena.run_tournament(players(), plan())
    for shard in reversed(cut):
        table = arena.play_shard(all_teams[shard.team], plan(), shard)
        ids = table["episode_id"].to_pylist()
        assert ids == sorted(ids)
        assert table.equals(whole.filter(pa.compute.is_in(whole["episode_id"], pa.array(ids))).combine_chunks())


# ── the merge ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("group", [1, 7, 10**6])
def test_merged_is_what_memory_holds(tmp_path, monkeypatch, group):
    monkeypatch.setattr(store, "GROUP_ROWS", group)
    monkeypatch.setattr(results, "GROUP_ROWS", 50)
    kept, _, player = filled(tmp_path)
    whole = arena.run_tournament(players(), plan())
    pieces = list(merge.merged(player.teams, plan(), player.shards, kept.paths))
    assert len(pieces) > 10
    together = pa.concat_tables(pieces)
    ids = together["episode_id"].to_pylist()
    assert ids == sorted(ids, key=str.encode)
    assert ids != [i for shard in player.shards for i in kept_ids(kept, player.shards.index(shard))]
    assert together.combine_chunks().equals(whole)
    assert together.schema.equals(results.SCHEMA, check_metadata=True)
    results.write_pieces(pieces, tmp_path / "pieces")
    results.write_pieces([whole], tmp_path / "whole")
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    file = pq.ParquetFile(tmp_path / "whole")
    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert rows[:-1] == [50] * (len(whole) // 50)


def kept_ids(kept, number):
    return pq.read_table(kept.paths[number])["episode_id"].to_pylist()


def test_the_merge_holds_a_row_group_of_each_open_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "GROUP_ROWS", 4)
    monkeypatch.setattr(results, "GROUP_ROWS", 50)
    readers, held = [], []

    class Watched(merge.Reader):
        def __init__(self, path):
            super().__init__(path)
            readers.append(self)

    monkeypatch.setattr(merge, "Reader", Watched)
    kept, _, player = filled(tmp_path, plan(games=60))
    for piece in merge.merged(player.teams, plan(games=60), player.shards, kept.paths):
        held.append((len(piece), max(len(reader.held) for reader in readers), sum(len(r.held) for r in readers)))
    assert len(readers) == len(player.shards) == 26
    assert max(h[0] for h in held) <= 4  # a cell of 60 games is not gathered
    assert 0 < max(h[1] for h in held) < 4
    assert max(h[2] for h in held) < 2 * arena.MOST_SHARDS * 4
    assert not any(len(reader.held) for reader in readers)


def test_episodes_out_of_order_are_refused(tmp_path):
    whole = arena.run_tournament(players(), plan())
    results.write_pieces([whole.slice(0, 5), whole.slice(5)], tmp_path / "file")
    for pieces in ([whole.slice(5), whole.slice(0, 5)], [whole.slice(0, 5), whole.slice(4)]):
        with pytest.raises(RuntimeError, match="not sorted"):
            results.write_pieces(pieces, tmp_path / "file")
    results.write_pieces([], tmp_path / "none")
    assert pq.read_table(tmp_path / "none").schema.equals(results.SCHEMA)


def test_a_name_that_would_tangle_ids_is_refused():
    with pytest.raises(InputError, match=r"'a\|b' holds a '\|'"):
        arena.run_tournament([dial("a|b")], plan())


# ── the store ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_finished_shards_are_found_again(tmp_path):
    kept, warnings, player = filled(tmp_path)
    again, found, _ = reopened(tmp_path, player)
    assert (list(found), again.paths, warnings) == (list(range(len(player.shards))), kept.paths, [])
    assert sum(row.sums[0] for rows in found.values() for row in rows) == sum(map(plan().rows, players()))
    again.close()
    assert kept.folder.is_dir()
    again.discard()
    assert not list(tmp_path.iterdir())


def test_a_store_without_shards_leaves_nothing(tmp_path):
    player = ShardPlayer(players(), plan(), IDENTITY)
    reopened(tmp_path, player)[0].close()
    assert not list(tmp_path.iterdir())


def overwritten(path, change):
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def flip(content, at):
    content[at] ^= 1


DAMAGE = {
    "a bit": (lambda p, _: overwritten(p, lambda c: flip(c, len(c) // 2)), "is corrupt"),
    "a bit of the mark": (lambda p, _: overwritten(p, lambda c: flip(c, -20)), "is corrupt"),
    "truncated": (lambda p, _: p.write_bytes(p.read_bytes()[:-7]), "is corrupt"),
    "empty": (lambda p, _: p.write_bytes(b""), "is corrupt"),
    "of another number": (lambda p, q: p.rename(q.with_name(p.name.replace("000002", "000005"))), "another tournament"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_shards_are_named_and_played_again(tmp_path, damage, says):
    kept, _, player = filled(tmp_path)
    whole = {path.name: path.read_bytes() for path in kept.folder.iterdir()}
    kept.paths[5].unlink()
    damage(kept.paths[2], kept.paths[5])
    again, found, warnings = reopened(tmp_path, player)
    assert set(range(len(player.shards))) - set(found) == {2, 5}
    assert len(warnings) == 1
    assert says in warnings[0]
    assert str(kept.folder) in warnings[0]
    assert f": {player.shards[2 if says == 'is corrupt' else 5]} is played again" in warnings[0]
    for number in (5, 2):
        again.put(number, player.play(number).content)
    assert {path.name: path.read_bytes() for path in kept.folder.iterdir()} == whole


def test_what_does_not_belong_is_named_and_removed(tmp_path):
    kept, _, player = filled(tmp_path / "own")
    other, _, _ = filled(tmp_path / "other", identified=Identity({"settings": {"games": 7}}))
    theirs = other.paths[3]
    assert theirs.name != kept.paths[3].name
    kept.paths[3].unlink()
    shutil.copy(theirs, kept.folder)
    (kept.folder / ".000001-abc.parquet.x1y2").write_bytes(b"PAR1")
    (kept.folder / "000099-00000000000000000000000000000000.parquet").write_bytes(b"PAR1")
    (kept.folder / "notes").mkdir()
    _, found, warnings = reopened(tmp_path / "own", player)
    assert set(range(len(player.shards))) - set(found) == {3}
    told = dict(zip((".000001", "000003", "000099", "notes"), warnings, strict=True))
    assert all(name in text for name, text in told.items())
    assert "half written" in told[".000001"]
    assert "another tournament" in told["000003"]
    assert "no shard of this tournament" in told["000099"]
    assert len(list(kept.folder.iterdir())) == len(player.shards)  # and plan.json, less one shard


def test_another_plan_is_refused(tmp_path):
    kept, _, player = filled(tmp_path)
    other = Identity({"settings": {"games": 24, "seed": 3}})
    with pytest.raises(InputError) as caught:
        reopened(tmp_path, player, other)
    assert "another tournament (different: games, seed); choose another --out" in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert reopened(tmp_path, player)[1].keys() == set(range(len(player.shards)))  # nothing was touched
    assert reopened(tmp_path, player, other, fresh=True)[1] == {}
    assert [path.name for path in kept.folder.iterdir()] == ["plan.json"]
    assert json.loads((kept.folder / "plan.json").read_text()) == other.document


def test_a_plan_that_cannot_be_read_is_another(tmp_path):
    kept, _, player = filled(tmp_path)
    for text in ("{", "[]"):
        (kept.folder / "plan.json").write_text(text)
        with pytest.raises(InputError, match="another tournament"):
            reopened(tmp_path, player)


def test_what_is_none_of_ours_is_not_touched(tmp_path):
    player = ShardPlayer(players(), plan(), IDENTITY)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/thesis.txt").write_text("")
    for fresh in (False, True):
        with pytest.raises(InputError, match="it would be lost"):
            reopened(tmp_path, player, fresh=fresh)
    assert (tmp_path / "shards/thesis.txt").exists()


@pytest.mark.parametrize("left", ["shards", ".shards.discarded"])
def test_killed_while_making_or_removing_the_folder(tmp_path, left):
    player = ShardPlayer(players(), plan(), IDENTITY)
    (tmp_path / left).mkdir()
    (tmp_path / left / ".plan.json.x1").write_text("{")
    reopened(tmp_path, player)[0].close()
    assert not list(tmp_path.iterdir())


# ── the identity ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_identity_is_all_that_results_depend_on(tmp_path, monkeypatch):
    plugin = tmp_path / "plugin.py"
    plugin.write_text("1")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/w").write_text("1")
    monkeypatch.setattr(identity, "CODE", ("experiments/match",))
    who, one = [dial(f"janus:{tmp_path / 'weights'}"), script("easy")], plan()

    def digest(described=None, who=who, one=one, files=(plugin, None, "no/path")):
        return identify(described or {"guard": "ir"}, who, one, files).digest

    whole = digest()
    assert digest() == whole
    others = [
        digest({"guard": "none"}),
        digest(who=who[::-1]),
        digest(one=plan(games=24)),
        digest(one=plan(seed=1)),
        digest(one=plan(seats=(Seat.BUYER,))),
        digest(one=plan(preset=PRESETS["hidden"])),
        digest(one=plan(max_turns=19)),
        digest(one=plan(opponents=("easy", "easy2"))),
        digest(one=plan(rho=arena.same_grid((0.5,)))),
        digest(files=()),
    ]
    plugin.write_text("2")
    others.append(digest())
    plugin.write_text("1")
    (tmp_path / "weights/w").write_text("2")
    others.append(digest())
    (tmp_path / "weights/w").write_text("1")
    assert digest() == whole
    monkeypatch.setattr(identity, "CODE", ("experiments/match", "experiments/corpus"))
    others.append(digest())
    assert len({whole, *others}) == 1 + len(others)


def test_long_files_are_known_by_their_ends(tmp_path, monkeypatch):
    file = tmp_path / "weights"
    digest = functools.partial(identity.tree_digest, [file])
    file.write_bytes(b"a" * 100)
    monkeypatch.setattr(identity, "WHOLE", 40)
    whole = digest()
    for at in (3, 97):
        overwritten(file, lambda content, at=at: flip(content, at))
        assert digest() != whole
        overwritten(file, lambda content, at=at: flip(content, at))
    assert digest() == whole
    file.write_bytes(b"a" * 101)
    assert digest() != whole
