"""`agents.LearnedPolicy`: plays what the file says, in any batch; reads no pickle; refuses what it cannot play.

The files are written here, in the layout of Stable-Baselines3, which is not needed; `test_learners` compares with its own.
"""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import agents
import bargain_env as be
from bargain_env import actions, policy
from bargain_env.errors import InputError
from bargain_env.observation import SIZE
from bargain_env.single import BargainEnv
from bargain_env.vector import BargainVectorEnv
from experiments import cli, tournament

ROOT = Path(__file__).resolve().parents[1]
PLAIN, MASKABLE = "stable_baselines3.common.policies", "sb3_contrib.common.maskable.policies"
K = 27


class Bomb:
    """Unpickling one leaves a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def weights(mode="box", inputs=SIZE, hidden=(16, 8), seed=8):
    """A random network that decides differently in different positions."""
    make = torch.Generator().manual_seed(seed)
    state, into = {}, inputs
    for layer, out in enumerate(hidden):
        for half in ("policy", "value"):
            state[f"mlp_extractor.{half}_net.{2 * layer}.weight"] = 1.5 * torch.randn(out, into, generator=make) / 3
            state[f"mlp_extractor.{half}_net.{2 * layer}.bias"] = torch.randn(out, generator=make) / 3
        into = out
    outputs = 1 if mode == "box" else 1 + K
    state["action_net.weight"] = torch.randn(outputs, into, generator=make)
    state["action_net.bias"] = torch.randn(outputs, generator=make) / 3
    state["value_net.weight"], state["value_net.bias"] = torch.randn(1, into, generator=make), torch.zeros(1)
    return state | ({"log_std": torch.full((1,), -1.0)} if mode == "box" else {})


def saved(path, mode="box", module=PLAIN, state=None, kwargs=None, **data):
    """A file as ``model.save`` writes it; what it would pickle is spelled as in the real thing."""
    space = "box.Box" if mode == "box" else "discrete.Discrete"
    about = {
        "policy_class": {":type:": "<class 'abc.ABCMeta'>", ":serialized:": "gAWV", "__module__": module},
        "policy_kwargs": kwargs or {},
        "action_space": {":type:": f"<class 'gymnasium.spaces.{space}'>", ":serialized:": "gAWV"},
        **data,
    }
    buffer = io.BytesIO()
    torch.save(weights(mode) if state is None else state, buffer)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps(about))
        archive.writestr("policy.pth", buffer.getvalue())
    return str(path)


def reference(state, activation=torch.tanh):
    """The same network in float32, one game at a time."""

    def ask(seen):
        x = torch.as_tensor(seen)[None]
        for layer in range(2):
            name = f"mlp_extractor.policy_net.{2 * layer}"
            x = activation(torch.nn.functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"]))
        return torch.nn.functional.linear(x, state["action_net.weight"], state["action_net.bias"])[0].numpy()

    return ask


def record(env, n, choose):
    """Prices and kinds of ``n`` games of a single environment, played by ``choose(observation)``."""
    played = []
    for k in range(n):
        seen, _ = env.reset(seed=5) if k == 0 else env.reset()
        over = False
        while not over:
            seen, _, over, _, _ = env.step(choose(seen))
        played.append((list(env.session.state.prices), [int(kind) for kind in env.session.state.kinds]))
    return played


class Prompted:
    """Plays recorded games, and asks ``learned`` on every turn what it would have done."""

    memoryless = True

    def __init__(self, games, learned):
        self.name, self.games, self.learned, self.wrong = "prompted", games, learned, []

    def reset(self, games):
        pass

    def act(self, view):
        moves = self.learned.act(view)
        prices = np.array([self.games[row][0][view.turn - 1] or np.nan for row in view.rows])
        kinds = np.array([self.games[row][1][view.turn - 1] for row in view.rows])
        accept = kinds != be.MoveKind.OFFER  # an INVALID move is an ACCEPT where nothing stands
        far = ~accept & (np.abs(moves.price - prices) > TOLERANCE)
        self.wrong += view.rows[far | (moves.accept != accept)].tolist()
        return be.Moves(accept, prices)


TOLERANCE = 0.005 + 650 * 1e-6
"""The environment shows offers rounded to the tick of 0.01; float32 is good for 1e-6 of half the price range."""


def assert_same_decisions(played, learned, seat):
    prompted, other = Prompted(played, learned), be.Linear()
    games = be.sample("hidden", len(played), seed=5)
    result = be.play(games, prompted, other) if seat == "buyer" else be.play(games, other, prompted)
    assert result.turns.tolist() == [len(kinds) for _, kinds in played]
    assert prompted.wrong == []


# ── it plays what the file says ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seat", ["buyer", "seller"])
@pytest.mark.parametrize(
    ("name", "activation"), [(None, torch.tanh), ("ReLU", torch.relu), ("ELU", torch.nn.functional.elu)]
)
def test_box_games_are_those_of_the_environment(tmp_path, seat, name, activation):
    kwargs = {"activation_fn": f"<class 'torch.nn.modules.activation.{name}'>", ":serialized:": "gAWV"} if name else {}
    policy = agents.LearnedPolicy(saved(tmp_path / "p.zip", kwargs=kwargs))
    ask = reference(weights(), activation)
    env = BargainEnv(seat=seat, action_mode="box")
    played = record(env, 40, lambda seen: np.clip(ask(seen), -1, 1))
    assert_same_decisions(played, policy, seat)
    assert {k for _, kinds in played for k in kinds} >= {be.MoveKind.OFFER, be.MoveKind.ACCEPT}


@pytest.mark.parametrize("seat", ["buyer", "seller"])
@pytest.mark.parametrize("module", [PLAIN, MASKABLE])
@pytest.mark.parametrize("inputs", [SIZE, SIZE + 1 + K])
def test_grid_games_are_those_of_the_environment(tmp_path, seat, module, inputs):
    state = weights("grid", inputs)
    policy = agents.LearnedPolicy(saved(tmp_path / "p.zip", "grid", module, state))
    ask = reference(state)

    def choose(seen):
        mask, numbers = seen["action_mask"], seen["observation"]
        scores = ask(np.concatenate([mask, numbers], dtype=np.float32) if inputs > SIZE else numbers)
        return int(np.where(mask, scores, -np.inf).argmax() if module == MASKABLE else scores.argmax())

    env = BargainEnv(seat=seat, n_prices=K)
    played = record(env, 40, choose)
    assert_same_decisions(played, policy, seat)
    if module == MASKABLE:
        assert be.MoveKind.INVALID not in {k for _, kinds in played for k in kinds}


def test_without_a_mask_an_illegal_accept_wastes_the_turn_as_in_the_environment(tmp_path):
    state = weights("grid")
    state["action_net.bias"][actions.ACCEPT] = 100.0
    games = be.sample("hidden", 2, seed=0)  # the buyer starts the first
    kinds = []
    for module in (PLAIN, MASKABLE):
        policy = agents.LearnedPolicy(saved(tmp_path / "p.zip", "grid", module, state))
        kinds.append(be.play(games, policy, be.Linear()).kinds[0, 0])
        (tmp_path / "p.zip").unlink()
    assert kinds == [be.MoveKind.INVALID, be.MoveKind.OFFER]


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("mode", ["box", "grid"])
def test_neither_the_batch_nor_mixed_turns_matter(tmp_path, mode, deterministic):
    learned = agents.LearnedPolicy(
        saved(tmp_path / "p.zip", mode, MASKABLE if mode == "grid" else PLAIN), deterministic
    )
    games = be.sample("hidden", 60, seed=2)
    whole = be.play(games, learned, be.Linear())
    order = np.random.default_rng(0).permutation(60)
    for rows in (order[:1], order[1:8], order[8:]):
        part = be.play(games.take(rows), learned, be.Linear())
        assert part.prices.tobytes() == whole.prices[rows].tobytes()
        assert (part.kinds == whole.kinds[rows]).all()

    class TurnByTurn(agents.LearnedPolicy):
        mixed_turns = False

    twin = TurnByTurn(tmp_path / "p.zip", deterministic)
    envs = [BargainVectorEnv(16, opponent=opponent, action_mode="box") for opponent in (learned, twin)]
    turns = set()
    rng = np.random.default_rng(1)
    for env in envs:
        env.reset(seed=0)
    for _ in range(60):
        action = rng.uniform(-1, 1, (16, 1)).astype(np.float32)
        seen = [env.step(action) for env in envs]
        assert seen[0][0].tobytes() == seen[1][0].tobytes()
        assert seen[0][1].tobytes() == seen[1][1].tobytes()
        turns.add(len(np.unique(seen[0][0][:, 1])))
    assert max(turns) > 3, "the games were never on different turns"


def test_samples_follow_the_network(tmp_path):
    state = weights("grid")
    for name in state:
        state[name] = torch.zeros_like(state[name])
    state["action_net.bias"][:4] = torch.log(torch.tensor([8.0, 4.0, 2.0, 1.0]))
    state["action_net.bias"][4:] = -torch.inf
    with pytest.raises(InputError, match="not finite"):
        agents.LearnedPolicy(saved(tmp_path / "infinite.zip", "grid", MASKABLE, state))
    state["action_net.bias"][4:] = -1000.0
    learned = agents.LearnedPolicy(saved(tmp_path / "p.zip", "grid", MASKABLE, state), deterministic=False)
    games = be.SeatGames.of(be.sample("hidden", 20_000, seed=1), be.Seat.BUYER)
    nothing = policy.SeatView(np.arange(20_000), games, 1, np.full(20_000, np.nan), np.empty((20_000, 0)))
    moves = learned.act(nothing)
    assert not moves.accept.any()
    shares = [(moves.price == price).mean() for price in actions.grid(200.0, 1500.0, K)[:3]]
    assert shares == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=0.02)

    state = weights()
    for name in state:
        state[name] = torch.zeros_like(state[name])
    state["log_std"][0] = np.log(0.2)
    learned = agents.LearnedPolicy(saved(tmp_path / "box.zip", state=state), deterministic=False)
    value = (learned.act(nothing).price - 850.0) / 650.0
    assert (value.mean(), value.std()) == pytest.approx((0.0, 0.2), abs=0.005)


def test_gsde_plays_its_mean_and_is_not_sampled(tmp_path):
    state = weights() | {"log_std": torch.zeros(8, 1)}
    path = saved(tmp_path / "p.zip", state=state)
    assert agents.LearnedPolicy(path).network.spread is None
    with pytest.raises(InputError, match="gSDE"):
        agents.LearnedPolicy(path, deterministic=False)


# ── as a name ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_a_strategy(tmp_path):
    path = saved(tmp_path / "p.zip")
    name = f"learned:{path}"
    assert agents.make(name).name == name
    assert agents.describe(name).family == "learned"
    assert name not in agents.list_strategies()
    env = BargainEnv(opponent=["linear_standard", name])  # self-play against an earlier self
    env.reset(seed=0)
    assert agents.make(name[: -len(".zip")]).network is agents.make(name).network  # as Stable-Baselines3 names files


def test_a_file_written_anew_is_read_anew(tmp_path):
    path = Path(saved(tmp_path / "p.zip"))
    first = agents.LearnedPolicy(path).network
    saved(path, state=weights(seed=9))
    assert agents.LearnedPolicy(path).network is not first


@pytest.mark.slow
def test_it_plays_a_tournament_from_the_command_line_without_stable_baselines(tmp_path):
    """As agent and as opponent; the files are the same bytes twice."""
    name = f"learned:{saved(tmp_path / 'p.zip')}"
    code = (
        "import sys; sys.modules['stable_baselines3'] = sys.modules['sb3_contrib'] = None\n"
        "from experiments import cli, tournament; cli.main(tournament.Settings, tournament.run)"
    )
    options = ["--agents", f"{name},script:fair", "--opponents", f"linear_standard,{name}", "--games", "6", "--quiet"]
    for out in ("a", "b"):
        command = [sys.executable, "-c", code, *options, "--out", str(tmp_path / out)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found = json.loads((tmp_path / "a" / "summary.json").read_text(encoding="utf-8"))
    assert name in json.dumps(found["overall"])
    for file in ("episodes.parquet", "summary.json", "summary.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


# ── what it refuses ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_unpickled(tmp_path):
    """Neither what ``data`` holds nor a forged ``policy.pth``."""
    import base64

    went_off = tmp_path / "went_off"
    bomb = pickle.dumps(Bomb(went_off))
    entry = {":type:": "x", ":serialized:": base64.b64encode(bomb).decode()}
    forged = {**entry, "__module__": PLAIN}
    kwargs = {**entry, "activation_fn": "<class 'torch.nn.modules.activation.ReLU'>"}
    agents.LearnedPolicy(saved(tmp_path / "data.zip", policy_class=forged, kwargs=kwargs, lr_schedule=entry))
    with zipfile.ZipFile(tmp_path / "data.zip") as archive:
        data = archive.read("data")
    buffer = io.BytesIO()
    torch.save({"action_net.weight": Bomb(went_off)}, buffer)
    for k, forged_weights in enumerate((buffer.getvalue(), bomb)):
        with zipfile.ZipFile(tmp_path / f"{k}.zip", "w") as archive:
            archive.writestr("data", data)
            archive.writestr("policy.pth", forged_weights)
        with pytest.raises(InputError, match="no plain weights"):
            agents.LearnedPolicy(tmp_path / f"{k}.zip")
    assert not went_off.exists()
    pickle.loads(bomb)
    assert went_off.exists(), "the bomb was none"


def broken(change):
    """A state without, or with other, weights."""
    state = weights()
    change(state)
    return state


REFUSED = {
    "no such file": (None, "no learned policy at"),
    "not a zip": (b"zip? never heard", "no zip of Stable-Baselines3, or damaged"),
    "cut off": (600, "no zip of Stable-Baselines3, or damaged"),
    "a DQN": ({"module": "stable_baselines3.dqn.policies"}, "'stable_baselines3.dqn.policies', not one of PPO"),
    "somebody's own class": ({"module": "my_code"}, "'my_code', not one of PPO"),
    "no class": ({"policy_class": 3}, "an unknown module"),
    "other actions": (
        {"action_space": {":type:": "<class 'x.MultiDiscrete'>"}},
        "its actions are <class 'x.MultiDiscrete'>",
    ),
    "grid actions, box weights": ({"mode": "grid", "state": weights()}, "1 outputs are not the actions of 'grid'"),
    "box actions, grid weights": ({"state": weights("grid")}, "28 outputs are not the actions of 'box'"),
    "own features extractor": (
        {"kwargs": {":serialized:": "gAWV", "features_extractor_class": "<class 'mine.Net'>"}},
        "policy_kwargs features_extractor_class need its author's code",
    ),
    "squashed": ({"kwargs": {"squash_output": True}}, "policy_kwargs squash_output"),
    "kwargs of another kind": ({"kwargs": [1]}, "policy_kwargs are not an object"),
    "unknown activation": (
        {"kwargs": {"activation_fn": "<class 'torch.nn.modules.activation.Mish'>", ":serialized:": "gAWV"}},
        "activation_fn is Mish; train with one of Tanh, ReLU, ELU",
    ),
    "own activation": ({"kwargs": {"activation_fn": "<class 'mine.Tanh'>"}}, "activation_fn is <class 'mine.Tanh'>"),
    "frames stacked": ({"state": weights(inputs=4 * SIZE)}, "reads 88 numbers, where this game shows 22"),
    "pixels": (
        {"state": broken(lambda s: s.update({"features_extractor.cnn.0.weight": torch.zeros(2)}))},
        "weights beyond a plain network",
    ),
    "a weight missing": ({"state": broken(lambda s: s.pop("action_net.bias"))}, "weight 'action_net.bias' is missing"),
    "shapes": (
        {"state": broken(lambda s: s.update({"action_net.weight": torch.zeros(1, 3)}))},
        "shapes of its weights do not fit",
    ),
    "not numbers": (
        {"state": broken(lambda s: s["action_net.bias"].fill_(torch.nan))},
        "weights that are not finite",
    ),
    "not tensors": ({"state": {"log_std": "high"}}, "no plain weights"),
    "not a dict": ({"state": [1, 2]}, "no plain weights"),
    "data is a list": ({"data": "[]"}, "'data' is not an object"),
    "data is no JSON": ({"data": "{"}, "no zip of Stable-Baselines3, or damaged"),
    "no data": ({"data": None}, "no zip of Stable-Baselines3, or damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_with_code_2(tmp_path, capsys, case):
    given, message = REFUSED[case]
    path = tmp_path / "p.zip"
    if isinstance(given, bytes):
        path.write_bytes(given)
    elif isinstance(given, int):
        path.write_bytes(Path(saved(path)).read_bytes()[:given])
    elif given is not None and "data" in given:
        with zipfile.ZipFile(path, "w") as archive:
            if given["data"] is not None:
                archive.writestr("data", given["data"])
            archive.writestr("policy.pth", b"")
    elif given is not None:
        saved(path, **given)
    for option in ("--agents", "--opponents"):
        agent = ["--agents", "script:fair"] if option == "--opponents" else []
        arguments = [*agent, option, f"learned:{path}", "--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit) as stop:
            cli.main(tournament.Settings, tournament.run, arguments)
        complaint = capsys.readouterr().err
        assert stop.value.code == 2
        assert message in complaint
        assert "p.zip" in complaint
        assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_path_and_a_folder(tmp_path):
    for name in ("learned:", f"learned:{tmp_path}"):
        with pytest.raises(InputError, match="no learned policy at"):
            agents.make(name)
