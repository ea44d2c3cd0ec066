"""`experiments.teacher` and its learner: what is rewarded becomes likelier, who it plays against, and that it learns."""

import math

import numpy as np
import pytest
import torch
from zoo import Erratic

import bargain_env as be
from agents.teacher import ACCEPT, AT_GOAL, CONCESSIONS, FEATURES, MOVES, Teacher, load_network
from bargain_env import Seat
from experiments import cli, teacher
from experiments.actor_critic import ActorCritic, Decided, Explorer, Learner, LearningRates, Played
from experiments.match import pairs

BATCH = 64
TOLD = 2
FEW = ["linear_standard", "boulware_hard", "fair"]
SILENT = LearningRates(entropy=0.0, epochs=1, batch_size=BATCH)


def settings(out, **changes):
    tiny = {"rounds": 2, "games": 64, "hidden": 8, "drawn": 3, "seekers": 1, "threads": 1, "quiet": True}
    tiny["scenario"] = "paper"
    return teacher.Settings(out, **{**tiny, **changes})


# ── rewards ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_reward_is_the_distance_from_the_goal():
    rho, goal = np.array([0.3, 0.5, 0.1, math.nan, math.nan, 1.2]), np.array([0.3, 0.3, 0.3, 0.3, 0.0, 0.9])
    zopa = np.ones(6, dtype=bool)
    assert teacher.rewards(rho, zopa, goal, 1.2).tolist() == pytest.approx([0, -0.2, -0.2, -1.2, -1.2, -0.3])
    zopa[[2, 3]] = False
    assert teacher.rewards(rho, zopa, goal, 1.2)[[2, 3]].tolist() == [0, 0], "nothing to reach, nothing to miss"


def test_goals_are_even_but_for_the_ends_and_tenths():
    goal = teacher.goals(np.random.default_rng(0), 40_000)
    ends, reach = teacher.BEYOND / (1 + 2 * teacher.BEYOND), 1 + 2 * teacher.BEYOND
    inner = 0.7 / reach / 10  # of a tenth without its round numbers
    met, _ = np.histogram(goal[np.round(goal, 1) != goal], 10, (0, 1))
    assert met / 40_000 == pytest.approx([inner] * 10, abs=0.006)
    half = 0.3 * 0.05 / reach  # what is rounded to an end
    assert [(goal == end).mean() for end in (0, 1)] == pytest.approx([ends + half] * 2, abs=0.006)
    assert (goal == 0.3).mean() == pytest.approx(0.3 * 0.1 / reach, abs=0.004)


# ── the learner ───────────────────────────────────────────────────────────────────────────────────────────────────────


def model(seed=0, hidden=16):
    return ActorCritic(hidden, TOLD, torch.Generator().manual_seed(seed))


def learner(net, rates=SILENT, rounds=10):
    return Learner(net, rounds, torch.Generator().manual_seed(1), rates)


def decisions(net, chosen, ratio=1.0):
    """``[N]`` decisions of one position, which the player took ``1 / ratio`` times as gladly; move 7 was not legal."""
    chosen = torch.as_tensor(chosen)[:, None]
    seen = torch.from_numpy(np.random.default_rng(0).normal(size=FEATURES).astype(np.float32)).expand(len(chosen), -1)
    allowed = torch.ones(len(chosen), MOVES, dtype=torch.bool)
    allowed[:, 7] = False
    with torch.no_grad():
        taken = net.scores(seen, allowed).gather(1, chosen) - math.log(ratio)
    return Decided(seen, allowed, chosen, taken)


def at_once(decided, reward):
    """Games of one decision each, of which nothing is told."""
    reward = torch.as_tensor(reward)
    return [Played([(np.arange(len(reward)), decided)], torch.zeros(len(reward), TOLD), reward)]


def chances(net, decided):
    with torch.no_grad():
        return net.scores(decided.seen[:1], decided.allowed[:1]).exp()[0].numpy()


@pytest.mark.parametrize(("good", "bad"), [(3, 5), (5, 3), (ACCEPT, 1)])
def test_what_was_rewarded_becomes_likelier(good, bad):
    net = model()
    decided = decisions(net, [good, bad] * 32)
    before = chances(net, decided)
    assert before.sum() == pytest.approx(1)
    assert before[7] == 0
    rates = LearningRates(entropy=0.0, epochs=30, batch_size=BATCH)
    learner(net, rates).learn(0, at_once(decided, [1.0, -1.0] * 32))
    after = chances(net, decided)
    assert after[good] > 1.02 * before[good]
    assert after[bad] < before[bad] / 1.02
    assert after[7] == 0


def actor_moves(returned, ratio, rates=SILENT):
    """How far a step takes the actor's weights, and the critic's."""
    net = model()
    before = [p.detach().clone() for p in (*net.actor.parameters(), *net.critic.parameters())]
    n = len(list(net.actor.parameters()))
    learner(net, rates).learn(0, at_once(decisions(net, [3] * len(returned), ratio), returned))
    after = [*net.actor.parameters(), *net.critic.parameters()]
    moved = [float((a - b).detach().abs().max()) for a, b in zip(after, before, strict=True)]
    return max(moved[:n]), max(moved[n:])


@pytest.mark.parametrize(
    ("ratio", "sign", "learns"),
    [
        (2.0, 1, False),  # already likelier by more than the clip
        (2.0, -1, True),  # it was bad, and became likelier: back
        (1.1, 1, True),
        (1.1, -1, True),
        (0.5, -1, False),  # already less likely by more than the clip
        (0.5, 1, True),
    ],
)
def test_a_ratio_beyond_the_clip_gives_no_gradient(ratio, sign, learns):
    returned = [sign * value for value in (5.0, 6.0, 7.0, 8.0)]
    actor, critic = actor_moves(returned, ratio)
    assert critic > 1e-5
    assert (actor > 1e-5) == learns
    wide = LearningRates(entropy=0.0, epochs=1, batch_size=BATCH, clip=2.0)
    assert actor_moves(returned, ratio, wide)[0] > 1e-5


def test_the_critic_learns_what_to_expect():
    net = model()
    decided = decisions(net, [3, 5] * 32)
    learn = learner(net, LearningRates(epochs=150, batch_size=BATCH))
    with torch.no_grad():
        assert abs(float(net.values(decided.seen, torch.zeros(64, TOLD))[0]) + 0.8) > 0.3
    learn.learn(0, at_once(decided, [-0.8] * 64))
    with torch.no_grad():
        assert float(net.values(decided.seen, torch.zeros(64, TOLD))[0]) == pytest.approx(-0.8, abs=0.1)


def test_the_critic_tells_games_apart_by_what_it_is_told():
    net = model()
    decided, told = decisions(net, [3] * 64), torch.eye(TOLD).repeat(32, 1)
    reward = torch.tensor([-0.1, -0.9] * 32)
    learner(net, LearningRates(epochs=300, batch_size=BATCH)).learn(
        0, [Played([(np.arange(64), decided)], told, reward)]
    )
    with torch.no_grad():
        assert net.values(decided.seen, told)[:2].tolist() == pytest.approx([-0.1, -0.9], abs=0.1)
    assert net.published(500.0, "paper").layers[0][0].shape == (16, FEATURES), "who plays is not told"


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_advantages_by_hand(lam):
    """Two games: one of three decisions, one of two, the second of which is made while the first game waits."""
    net = model()
    _, *choice = decisions(net, [3, 3])
    seen = torch.from_numpy(np.random.default_rng(1).normal(size=(5, FEATURES)).astype(np.float32))
    turns = [
        (np.array([0, 1]), seen[:2]),
        (np.array([1]), seen[2:3]),
        (np.array([0]), seen[3:4]),
        (np.array([0]), seen[4:]),
    ]
    decided = [(rows, Decided(x, *(column[: len(rows)] for column in choice))) for rows, x in turns]
    told, reward = torch.tensor([[0.3, 0.0], [0.0, 0.7]]), torch.tensor([-0.2, -1.0])
    with torch.no_grad():
        v = net.values(seen, told[[0, 1, 1, 0, 0]]).double().tolist()
    steps = {0: [v[3] - v[0], v[4] - v[3], -0.2 - v[4]], 1: [v[2] - v[1], -1.0 - v[2]]}
    expected = {game: [sum(lam**j * d for j, d in enumerate(deltas[k:])) for k in range(len(deltas))]
                for game, deltas in steps.items()}  # fmt: skip
    by_hand = [expected[0][0], expected[1][0], expected[1][1], expected[0][1], expected[0][2]]
    found, returned = learner(net, LearningRates(lam=lam))._estimates(Played(decided, told, reward))
    assert found.tolist() == pytest.approx(by_hand, abs=1e-5)
    assert returned.tolist() == pytest.approx([a + x for a, x in zip(by_hand, v, strict=True)], abs=1e-5)


def test_the_bonus_keeps_it_curious():
    def spread(entropy):
        net = model()
        decided = decisions(net, [3, 5] * 32)
        with torch.no_grad():
            as_expected = net.values(decided.seen, torch.zeros(64, TOLD)).clone()
        rates = LearningRates(entropy=entropy, epochs=1, batch_size=BATCH)
        learner(net, rates).learn(0, at_once(decided, as_expected))
        p = chances(net, decided)
        return -float((p * np.log(np.maximum(p, 1e-12))).sum())

    assert spread(0.5) > spread(0.0) + 1e-4


def test_it_starts_patient():
    net = model()
    p = chances(net, decisions(net, [0]))
    assert p[1] > 0.25
    assert p[1] > p[AT_GOAL] > 0.1
    little = 1 + np.flatnonzero((CONCESSIONS > 0) & (CONCESSIONS < 0.12))
    much = 1 + np.flatnonzero(CONCESSIONS >= 0.12)
    assert p[little[:5]].min() > p[much].max()
    assert p[ACCEPT] < p[much].min()


# ── exploring ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def explored(net, seed, n=200):
    games = be.sample("hidden", n, seed=4)
    player = Explorer(net, np.linspace(0, 1, n), 600.0, torch.Generator().manual_seed(seed))
    return be.play(games, player, Erratic()), player.decided


def test_what_it_decided_is_kept_with_its_chance():
    net = model()
    result, kept = explored(net, 0)
    mine = result.sides() == Seat.BUYER
    played = (result.kinds != be.MoveKind.NONE) & mine
    assert sum(len(rows) for rows, _ in kept) == played.sum()
    assert not result.count(be.MoveKind.INVALID, Seat.BUYER).any()
    taken = [np.bincount(rows, minlength=200) for rows, _ in kept]
    assert (np.sum(taken, axis=0) == played.sum(axis=1)).all(), "as many of each game as it moved in it"
    for rows, decided in kept:
        assert decided.allowed.gather(1, decided.chosen).all()
        with torch.no_grad():
            chance = net.scores(decided.seen, decided.allowed).gather(1, decided.chosen)
        torch.testing.assert_close(chance, decided.log_probability)
        assert (decided.seen[:, -5].numpy() == np.linspace(0, 1, 200)[rows].astype(np.float32)).all(), "its own goal"
    moves = torch.cat([decided.chosen for _, decided in kept])
    assert len(set(moves[:, 0].tolist())) > 10
    accepted = (result.kinds == be.MoveKind.ACCEPT) & mine
    assert (moves == ACCEPT).sum() == accepted.sum() > 5


def test_its_moves_are_drawn_from_its_generator():
    net = model()
    one, two, other = (explored(net, seed)[0].prices.tobytes() for seed in (0, 0, 1))
    assert one != other
    assert one == two


def test_what_is_published_has_the_actors_scores():
    net = model(3)
    seen = np.random.default_rng(1).normal(size=(20, FEATURES)).astype(np.float32)
    with torch.no_grad():
        scores = net.actor(torch.from_numpy(seen)).numpy()
    published = net.published(500.0, "paper")
    assert np.abs(model(4).published(500.0, "paper")(seen) - scores).max() > 0.01
    np.testing.assert_allclose(published(seen), scores, atol=1e-5)
    assert (published.scale, published.scenario) == (500.0, "paper")


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    made = {
        name: teacher.run(settings(tmp_path / name, **changes)).read_bytes()
        for name, changes in {"a": {}, "b": {}, "c": {"seed": 1}, "d": {"impasse_cost": 0.5}}.items()
    }
    assert len({made["a"], made["c"], made["d"]}) == 3
    assert made["a"] == made["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(made), "and nothing else is left"


@pytest.mark.parametrize("scenario", ["paper", "paper,hidden"])
def test_the_file_says_what_it_learned_on(tmp_path, capsys, scenario):
    out = teacher.run(settings(tmp_path / "new" / "t", scenario=scenario, rounds=1, quiet=False))
    network = load_network(out, 0)
    assert (network.scenario, network.scale) == (scenario, teacher.SCALE)
    assert [bias.size for _, bias in network.layers] == [8, 8, MOVES]
    said = capsys.readouterr().out
    assert "round 1 of 1: mean cost of a game " in said
    assert f"next: python -m experiments.collect --scenario {scenario} --teacher {out} --teacher-share 1" in said


def cost(player, n=240):
    """Mean cost of fresh games against a few, both seats."""
    total = 0.0
    goal = np.linspace(0, 1, n)
    for seat in Seat:
        games = be.sample("paper", n, seed=99)
        rival = pairs.routed(FEW, np.arange(n) % len(FEW), be.PRESETS["paper"])
        teaching = player(goal)
        result = be.play(games, *((teaching, rival) if seat == Seat.BUYER else (rival, teaching)))
        total -= teacher.rewards(result.rho, games.has_zopa, goal, 1.2).mean() / 2
    return total


def test_a_short_training_lowers_the_cost(tmp_path):
    model(0, 32).published(500.0, "paper").save(tmp_path / "untrained")
    alone = {"opponents": ",".join(FEW), "drawn": 0, "seekers": 0, "sparring": 0.0}
    learned = teacher.run(settings(tmp_path / "t", rounds=40, games=512, hidden=32, **alone))
    before, after = (cost(lambda goal, file=file: Teacher(file, goal)) for file in (tmp_path / "untrained", learned))
    assert before > 0.6
    assert after < 0.5 * before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rounds", 0], "--rounds 0 must be at least 1"),
        (["--games", 1], "--games 1 must be at least 4"),
        (["--games", 1, "--scenario", "paper"], "--games 1 must be at least 2"),
        (["--sparring", 1.1], "--sparring 1.1 must lie in"),
        (["--sparring", "nan"], "--sparring nan"),
        (["--hidden", 0], "--hidden 0"),
        (["--drawn", -1], "--drawn -1 must be at least 0"),
        (["--seekers", -1], "--seekers -1"),
        (["--redraw-every", 0], "--redraw-every 0"),
        (["--max-turns", 1], "--max-turns 1 must be at least 2"),
        (["--seed", -1], "--seed -1"),
        (["--seed", 2**43], "must be below 2**43"),
        (["--threads", 0], "--threads 0"),
        (["--impasse-cost", -0.1], "--impasse-cost -0.1"),
        (["--impasse-cost", "nan"], "--impasse-cost nan"),
        (["--priority", -1], "--priority -1"),
        (["--priority", "inf"], "--priority inf"),
        (["--scenario", "papr"], "did you mean 'paper'"),
        (["--scenario", ","], "--scenario is empty"),
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path, capsys, arguments, expected):
    out = tmp_path / "deeper" / "t"
    with pytest.raises(SystemExit) as stop:
        cli.main(teacher.Settings, teacher.run, [str(a) for a in [*arguments, "--out", out]])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert not out.parent.exists()


def test_a_folder_is_refused_before_it_trains(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(teacher, "_play", lambda *args: pytest.fail("it trained"))
    with pytest.raises(SystemExit):
        cli.main(teacher.Settings, teacher.run, ["--out", str(tmp_path)])
    assert "name a file in it, such as teacher.safetensors" in capsys.readouterr().err


def test_seeds_up_to_the_largest(tmp_path):
    teacher.run(settings(tmp_path / "t", rounds=1, seed=2**43 - 1))
    assert (tmp_path / "t").is_file()
