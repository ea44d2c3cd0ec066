"""The calibrated dial: the map itself, what it refuses, that every channel gets the same ρ, and its place in a folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from janus_worlds import OFFERS, TABLE, small_adapter, write_adapter, write_base

from agents.janus import JanusAgent, check_rho
from agents.janus_models import clear_models, shared_adapter
from agents.janus_session import Janus
from bargain_env import PRESETS, Seat, play, sample
from bargain_env.errors import InputError
from bargain_env.policy import SeatGames
from experiments import tournament
from experiments.match import contestants, opponents
from experiments.match.arms import JanusOptions
from hyperlora import Adapter, adapter_digest
from hyperlora.dial import Dial, Knots
from hyperlora.dial_files import HEAD, save_dial
from hyperlora.prompt import format_rho_text

DIAL = Dial(Knots((0.0, 0.4, 1.0), (0.1, 0.2, 0.9)), Knots((0.0, 0.5, 1.0), (0.0, 0.7, 0.7)), {"games": 3})
BY_SCENARIO = Dial(DIAL.seller, DIAL.buyer, {}, {"paper": Dial(DIAL.buyer, DIAL.seller)})
IDENTITY = Knots(tuple(np.linspace(0, 1, 21)), tuple(np.linspace(0, 1, 21)))


@pytest.fixture(scope="module")
def plain():
    """An adapter without a map."""
    return small_adapter()


def mapped(adapter, dial=DIAL):
    return Adapter(adapter.model, adapter.tokenizer, {**adapter.config, "dial": dial.as_config()})


# ── the map ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_knots():
    asked = np.array([-1.0, 0.0, 0.2, 0.4, 0.7, 1.0])
    assert DIAL.of(Seat.BUYER)(asked).tolist() == pytest.approx([-1.0, 0.1, 0.15, 0.2, 0.55, 0.9])
    assert DIAL.of(Seat.SELLER)(asked).tolist() == pytest.approx([-1.0, 0.0, 0.28, 0.56, 0.7, 0.7])
    fine = np.linspace(0, 1, 1001)
    for seat in Seat:
        assert (np.diff(DIAL.of(seat)(fine)) >= 0).all()
        assert np.ptp(DIAL.of(seat)(fine)) > 0.6
    grid = np.array([k / 20 for k in range(21)])
    assert IDENTITY(np.linspace(0, 1, 21)).tolist() == np.linspace(0, 1, 21).tolist()
    assert Knots((0.0, 1.0), (0.0, 1.0))(grid).tobytes() == grid.tobytes()
    assert DIAL.of(Seat.BUYER)(0.4).shape == ()


def test_config_round_trip():
    config = json.loads(json.dumps({"dial": DIAL.as_config(), "rank": 4}))
    assert Dial.from_config(config) == DIAL
    assert Dial.from_config({"rank": 4}) is None
    config = json.loads(json.dumps({"dial": BY_SCENARIO.as_config()}))
    assert Dial.from_config(config) == BY_SCENARIO
    assert "scenarios" not in DIAL.as_config()


def test_a_preset_may_have_maps_of_its_own():
    assert BY_SCENARIO.of(Seat.BUYER, "paper") == DIAL.buyer
    for elsewhere in (None, "hidden", "no_deal"):
        assert BY_SCENARIO.of(Seat.BUYER, elsewhere) == DIAL.seller
    assert DIAL.of(Seat.SELLER, "paper") == DIAL.seller


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([0.1], "is .* not a map"),
        ({"bayer": {}}, "unknown seat 'bayer'; did you mean 'buyer'"),
        ({"buyer": None}, "must hold 'asked' and 'internal'"),
        ({"buyer": {"asked": [0, 1]}}, "must hold 'asked' and 'internal'"),
        ({"buyer": {"asked": [0, 1], "internal": [0, 0.5, 1]}}, "2 knots 'asked' and 3"),
        ({"buyer": {"asked": [0], "internal": [0]}}, "2 at least"),
        ({"buyer": {"asked": [0.1, 1], "internal": [0, 1]}}, "rise from 0 to 1"),
        ({"buyer": {"asked": [0, 0.9], "internal": [0, 1]}}, "rise from 0 to 1"),
        ({"buyer": {"asked": [0, 0.5, 0.5, 1], "internal": [0, 0.1, 0.2, 1]}}, "rise from 0 to 1"),
        ({"buyer": {"asked": [0, 0.5, 1], "internal": [0, 0.6, 0.5]}}, "must be monotone"),
        ({"buyer": {"asked": [0, 1], "internal": [0, 1.1]}}, "in .0, 1."),
        ({"buyer": {"asked": [0, 1], "internal": [-0.1, 1]}}, "in .0, 1."),
        ({"buyer": {"asked": [0, 1], "internal": [float("nan"), 1]}}, "in .0, 1."),
        ({"buyer": {"asked": [0, float("nan"), 1], "internal": [0, 0.5, 1]}}, "rise from 0 to 1"),
        ({"buyer": {"asked": [0, 1], "internal": [[0], 1]}}, "of the buyer"),
        ({"buyer": {"asked": [0, 1], "internal": ["0", 1]}}, "no list of numbers"),
        ({"buyer": {"asked": [0, 1], "internal": "01"}}, "no list of numbers"),
        ({"buyer": {"asked": 3, "internal": [0, 1]}}, "of the buyer"),
        ({"fitted": 3}, "how it was fitted"),
        ({"scenarios": [1]}, "maps of scenario presets"),
        ({"scenarios": {"paper": {}}}, "of 'paper' lacks the seat 'buyer'"),
        ({"scenarios": {"paper": {**DIAL.as_config()}}}, "of 'paper' has an unknown seat 'fitted'"),
    ],
)
def test_what_is_no_dial_is_refused(plain, change, message):
    entry = {**DIAL.as_config(), **change} if isinstance(change, dict) else change
    for load in (Dial.from_config, lambda config: JanusAgent(Adapter(plain.model, plain.tokenizer, config))):
        with pytest.raises(InputError, match=message) as caught:
            load({"dial": entry})
        assert "experiments.calibrate" in str(caught.value)
        assert "\n" not in str(caught.value)
    JanusAgent(Adapter(plain.model, plain.tokenizer, {"dial": entry}), raw_dial=True)


def test_a_seat_that_is_missing_is_refused():
    with pytest.raises(InputError, match="lacks the seat 'seller'"):
        Dial.from_config({"dial": {"buyer": DIAL.as_config()["buyer"]}})


# ── at the table ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Witness(JanusAgent):
    """A Janus that keeps what its model says."""

    def answer(self, views, rhos, texts):
        found = super().answer(views, rhos, texts)
        self.said = [*getattr(self, "said", []), *(a.accept_probability for a in found)]
        return found


def games_of(adapter, rho, seat, **options):
    """All that was played, and what the model thought on the way."""
    games = sample("paper", len(rho), seed=5)
    agent = Witness(adapter, np.asarray(rho), **options)
    other = contestants.script("linear_standard").build(None, PRESETS["paper"])
    played = play(games, *((agent, other) if seat == Seat.BUYER else (other, agent)))
    return np.concatenate([played.prices.ravel(), *agent.said])


@pytest.mark.parametrize("seat", list(Seat))
@pytest.mark.parametrize("options", [{}, {"channel": "text"}, {"channel": "gates"}, {"decode": "sample"}])
def test_the_map_plays_as_the_internal_request_in_every_channel(plain, seat, options):
    asked = [0.0, 0.1, 0.5, 0.9, 1.0, -1.0]
    internal = DIAL.of(seat)(np.array(asked))
    raw, through = (games_of(plain, rho, seat, **options) for rho in (asked, internal))
    assert not np.array_equal(raw, through, equal_nan=True)
    assert np.array_equal(games_of(mapped(plain), asked, seat, **options), through, equal_nan=True)
    again = games_of(mapped(plain), asked, seat, raw_dial=True, **options)
    assert np.array_equal(again, raw, equal_nan=True)


def test_identity_changes_no_bit(plain):
    asked = [k / 20 for k in range(21)]
    identity = Dial(Knots(tuple(asked), tuple(asked)), Knots((0.0, 1.0), (0.0, 1.0)))
    for seat in Seat:
        raw = games_of(plain, asked, seat)
        assert games_of(mapped(plain, identity), asked, seat).tobytes() == raw.tobytes()
        assert games_of(mapped(plain), asked, seat).tobytes() != raw.tobytes()


def test_the_base_alone_has_no_dial(plain):
    asked = [0.0, 0.2, 0.6, 1.0]
    base = games_of(plain, asked, Seat.BUYER, base_only=True)
    assert np.array_equal(games_of(mapped(plain), asked, Seat.BUYER, base_only=True), base, equal_nan=True)
    internal = games_of(plain, DIAL.buyer(asked), Seat.BUYER, base_only=True)
    assert not np.array_equal(internal, base, equal_nan=True)


def test_a_session_decides_in_mixed_seats_at_the_internal_rho(plain):
    table = {**TABLE, "offers": OFFERS}
    other = {**TABLE, "seat": "seller", "reservation": 400.0, "offers": OFFERS[:1]}
    through, raw = Janus(JanusAgent(mapped(plain))), Janus(JanusAgent(plain))
    decided = through.decide([table, other, table], [0.2, 0.3, -1.0])
    internal = [0.15, 0.42, -1.0]
    assert [d.rho for d in decided] == [0.2, 0.3, -1.0]
    assert [d.internal_rho for d in decided] == pytest.approx(internal)
    plainly = raw.decide([table, other, table], [d.internal_rho for d in decided])
    moves = [(d.action, d.price, d.prompt, d.accept_probability) for d in decided]
    assert moves == [(d.action, d.price, d.prompt, d.accept_probability) for d in plainly]
    assert moves != [
        (d.action, d.price, d.prompt, d.accept_probability) for d in raw.decide([table, other, table], [0.2, 0.3, -1.0])
    ]
    assert format_rho_text(0.42) in decided[1].prompt
    assert "ρ 0.3 (set to 0.42)" in str(decided[1])
    assert "set to" not in str(plainly[1])
    said, same = decided[1].explain(), plainly[1].explain()
    assert (said.rho, said.internal_rho) == (0.3, pytest.approx(0.42))
    assert said.gates == same.gates != raw.decide(other, 0.3).explain().gates
    assert np.array_equal(said.prices.probability, same.prices.probability)
    assert "gates at ρ = 0.42" in str(said)
    assert said.as_dict()["internal_rho"] == said.internal_rho


def test_requests_are_checked_before_they_are_mapped(plain):
    with pytest.raises(InputError, match="outside"):
        JanusAgent(mapped(plain), 1.2)
    assert check_rho(0.3) == 0.3


# ── in a folder, and in a tournament ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def world(tmp_path):
    clear_models()
    yield write_adapter(tmp_path / "made" / "adapter", write_base(tmp_path / "made" / "base"))
    clear_models()


def read(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def test_saved_in_place_and_removed_again(world):
    before, card = read(world), (world / "README.md").read_text()
    digest = adapter_digest(shared_adapter(world).model)
    assert save_dial(world, DIAL) == world
    assert Dial.from_config(read(world)) == DIAL
    assert {k: v for k, v in read(world).items() if k != "dial"} == before
    assert JanusAgent(world).dial == DIAL, "what was loaded before the change is not what plays"
    assert adapter_digest(shared_adapter(world).model) == digest
    assert HEAD in (world / "README.md").read_text()
    first = (world / "README.md").read_bytes()
    save_dial(world, DIAL)
    assert (world / "README.md").read_bytes() == first, "a second one takes the place of the first"
    assert first.decode().count(HEAD) == 1
    save_dial(world, None)
    assert (read(world), (world / "README.md").read_text()) == (before, card)


@pytest.mark.parametrize("relative", [False, True])
def test_a_copy_finds_its_base(world, tmp_path, relative):
    if relative:
        config = read(world) | {"base_model": "../base"}
        (world / "adapter_config.json").write_text(json.dumps(config))
    before = read(world)
    alone = save_dial(world, DIAL, tmp_path / "elsewhere" / "deep" / "copy")
    both = save_dial(world.parent, DIAL, tmp_path / "pair")
    assert read(world) == before
    assert JanusAgent(world).dial is None
    assert JanusAgent(alone).dial == JanusAgent(both).dial == DIAL
    assert read(both / "adapter")["base_model"] == before["base_model"]
    assert (both / "base").is_dir()
    assert save_dial(world.parent, None, tmp_path / "pair") == both, "an adapter's folder may be replaced"
    assert JanusAgent(both).dial is None


def test_a_folder_that_holds_something_else_is_kept(world, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds no"):
        save_dial(world, DIAL, tmp_path / "mine")
    with pytest.raises(InputError, match="no adapter in"):
        save_dial(tmp_path / "mine", DIAL)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_tournaments_record_requests_and_whether_the_dial_was_raw(world, tmp_path):
    def run(name, **options):
        settings = tournament.Settings(
            f"janus:{world}", rho="0.1,0.5,0.9", opponents="linear_standard", games=2, scenario="paper", threads=1,
            quiet=True, out=tmp_path / name, **options,
        )  # fmt: skip
        found = tournament.run(settings)
        rows = tournament.results.read(settings.out)
        return found["settings"], rows["rho_requested"].to_pylist(), rows["offers"].to_pylist()

    plain, asked, offers = run("before")
    save_dial(world, DIAL)
    mapped_, requests, through = run("mapped")
    raw, _, again = run("raw", raw_dial=True)
    assert asked == requests
    assert offers == again != through
    assert (plain["raw_dial"], mapped_["raw_dial"], raw["raw_dial"]) == (False, False, True)
    assert tournament.resume_command(tournament.Settings(raw_dial=True)).endswith("--raw-dial")
    built = contestants.resolve_agents(f"janus:{world}", JanusOptions(threads=1, raw_dial=True))[0]
    assert built.build(np.array([0.5]), PRESETS["paper"]).dial is None


def test_either_seat_of_a_tournament_plays_by_the_map_of_its_preset(world, tmp_path):
    """As agent and as opponent; whoever does not know the preset plays by the map for all."""
    asked = np.array([0.2, 0.4, 0.6])
    save_dial(world, BY_SCENARIO)
    (built,) = contestants.resolve_agents(f"janus:{world}", JanusOptions(threads=1))
    for preset, here in (("paper", DIAL), ("hidden", BY_SCENARIO)):
        for seat in Seat:
            assert built.build(asked, PRESETS[preset]).internal(seat, asked).tolist() == here.of(seat)(asked).tolist()
        opposite = opponents.seated([f"janus:{world}(0.4)"], np.zeros(3, int), PRESETS[preset], JanusOptions(threads=1))
        opposite.reset(SeatGames.of(sample(preset, 3, seed=1), Seat.BUYER))
        (player,) = opposite._policies
        assert set(player._rho) == {float(here.buyer(0.4))}
    assert JanusAgent(world).internal(Seat.BUYER, asked).tolist() == BY_SCENARIO.buyer(asked).tolist()
    table = {**TABLE, "offers": OFFERS}
    by_name = {name: Janus.load(world, scenario=name).decide(table, 0.4).internal_rho for name in ("paper", "hidden")}
    assert by_name == pytest.approx({"paper": 0.2, "hidden": float(BY_SCENARIO.buyer(0.4))})
    with pytest.raises(InputError, match="did you mean 'paper'"):
        Janus.load(world, scenario="papr")
