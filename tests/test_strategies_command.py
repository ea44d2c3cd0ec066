"""`experiments.strategies`: lists, golden curves to the cent, the zoo's documents, refusals."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_strategies import GOLDEN

import agents
import bargain_env as be
from agents import registry
from bargain_env import MoveKind, Scenario, Scenarios, Seat
from experiments import cli, strategies
from experiments.match import alone, opponents, results
from experiments.reporting import statistics, summary, zoo
from experiments.reporting.terminal import HEIGHT, curve

ROOT = Path(__file__).resolve().parents[1]
FEW = ("boulware_hard", "linear_standard", "hardliner", "naive_concession", "random_zopa")


def command(capsys, *arguments):
    cli.main(strategies.Settings, strategies.run, list(arguments))
    return capsys.readouterr().out


# ── list ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_list_says_all_that_is_known(capsys):
    found = json.loads(command(capsys, "list", "--json"))
    assert [row["name"] for row in found] == agents.list_strategies()
    for row in found:
        info = agents.describe(row["name"])
        assert (row["family"], row["split"], row["stochastic"]) == (info.family, info.split, info.stochastic)
        assert "factory" not in row
        assert row["defaults"] == dict(info.defaults)
    table = command(capsys, "list")
    assert [line.split()[0] for line in table.splitlines()[1:-1]] == agents.list_strategies()
    assert "\x1b" not in table


def test_list_narrows(capsys, monkeypatch):
    kept = {name: registry._REGISTRY[name] for name in FEW}
    monkeypatch.setattr(registry, "_REGISTRY", kept)
    agents.register("secret", kept["hardliner"].factory, family="hardliner", split="held_out")
    assert command(capsys, "list", "--split", "held_out").splitlines()[1].split()[:4] == [
        "secret",
        "hardliner",
        "held",
        "out",
    ]
    names = [row["name"] for row in json.loads(command(capsys, "list", "--family", "hardliner", "--json"))]
    assert names == ["hardliner", "secret"]
    ranked = {
        line.split()[0]: line.split()[5] for line in command(capsys, "list", "--split", "train").splitlines()[1:-1]
    }
    assert ranked["random_zopa"] == "no"
    assert ranked["boulware_hard"] == "yes"


# ── show ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def shown(capsys, *arguments):
    return json.loads(command(capsys, "show", *arguments, "--json"))


@pytest.mark.parametrize("name", GOLDEN)
def test_the_published_curves_to_the_cent(capsys, name):
    found = shown(capsys, name, "--assumed-width", "500")
    assert found["name"] == name
    assert found["settings"]["assumed_width"] == 500
    assert [move["price"] for move in found["moves"]] == GOLDEN[name]
    assert [move["turn"] for move in found["moves"]] == list(range(1, 20, 2))
    assert {move["action"] for move in found["moves"]} == {"OFFER"}


def test_the_seller_is_the_mirror_image(capsys):
    game = ["--seat=seller", "--starter=seller", "--buyer_max=1300", "--seller-min=800", "--assumed_width=500"]
    for name in ("boulware_hard", "split_difference"):
        prices = [move["price"] for move in shown(capsys, name, *game)["moves"]]
        np.testing.assert_allclose(prices, 1700 - np.array(GOLDEN[name]), atol=1e-9)


def test_the_counterpart_never_moves():
    for seat, bound in ((Seat.BUYER, 1500.0), (Seat.SELLER, 200.0)):
        games = Scenarios.of([Scenario(900.0, 400.0, id=i, starter=Seat(i % 2)) for i in range(4)])
        mine, wall = agents.make("naive_concession"), alone.Wall()
        played = be.play(games, *((mine, wall) if seat == Seat.BUYER else (wall, mine)))
        others = played.prices[played.sides() != seat]
        assert set(others.tolist()) == {bound}
        assert (played.kinds[played.sides() != seat] == MoveKind.OFFER).all()
        assert not played.agreement.any()


def test_an_accepting_strategy_ends_the_game(capsys):
    found = shown(capsys, "naive_concession", "--buyer-max", "1500", "--starter", "seller", "--seed", "3")
    assert found["moves"] == [{"turn": 2, "action": "ACCEPT", "price": None}]
    assert shown(capsys, "fair", "--starter", "seller", "--max-turns", "1")["moves"] == []


def test_who_never_moves_is_said_not_to(capsys):
    text = command(capsys, "show", "fair", "--seat", "seller", "--max-turns", "1")
    assert "It never moved" in text
    assert "action" not in text
    assert "│" not in text
    assert "It never moved" not in command(capsys, "show", "fair", "--max-turns", "1")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("random_absolute_tit_for_tat", ["random whole number", "take back as much", "extra 10 (drawn from 1 to 40)"]),
        ("resource_time", ["the resource is patience times the turns left", "(drawn from 0.5 to 8)"]),
        ("resource_thread", ["the resource is patience over the moves made so far"]),
        ("boulware_immovable", ["exponent 8.0 (the family draws from 0.2 to 4 when it trains)"]),
        ("micro_giant", ["step 100.0 (the family draws from 10 to 50 when it trains)"]),
        ("modelling_counter", ["It accepts by AcAsp()"]),
    ],
)
def test_what_is_shown_is_what_it_does(capsys, name, says):
    text = " ".join(command(capsys, "show", name).split())
    for part in says:
        assert part in text


def test_a_seed_moves_the_stochastic_only(capsys):
    for name, same in (("noisy_boulware_hard", False), ("boulware_hard", True)):
        a, b = (shown(capsys, name, "--seed", seed)["moves"] for seed in ("0", "1"))
        assert (a == b) is same


def test_show_tells_rule_source_and_curve(capsys):
    text = command(capsys, "show", "boulware_firm", "--assumed-width", "500")
    assert "Concede" in text
    assert "Attributes" not in text
    assert agents.describe("boulware_firm").source in text
    assert "exponent 2.0 (drawn from 0.2 to 4)" in text
    assert "Polynomial(" in text
    assert "The seller offers 1500 on each of its turns and accepts nothing" in text
    assert "\x1b" not in text
    rows = re.findall(r"^ +(\d+) +OFFER +([\d.]+) +([\d.]+)%$", text, re.MULTILINE)
    assert [float(price) for _, price, _ in rows] == GOLDEN["boulware_firm"]
    assert [float(share) for *_, share in rows] == pytest.approx(
        [(p - 400) / 5 for p in GOLDEN["boulware_firm"]], abs=0.051
    )
    assert text.count("●") == len(rows)
    assert "One draw, seed 0" in command(capsys, "show", "micro_fine")


@pytest.mark.parametrize("name", agents.list_strategies())
def test_every_strategy_can_be_shown(capsys, name):
    assert name in command(capsys, "show", name, "--seat", "seller")


def test_a_curve_of_characters():
    levels = {"limit": 900.0, "start": 400.0}
    drawn = curve([(1, 400.0), (3, 650.0), (5, 900.0)], levels, 60, plain=True).plain
    lines = drawn.splitlines()
    assert drawn.isascii()
    assert len(lines) == HEIGHT + 2
    assert [i for i, line in enumerate(lines) if re.search(r"\| *-*o", line)] == [0, HEIGHT // 2, HEIGHT - 1]
    assert lines[0].startswith("   900.00 |")
    assert lines[0].endswith(" limit")
    assert lines[-1].split() == ["turn", "1", "3", "5"]
    many = curve([(t, float(t)) for t in range(1, 2000)], {}, 80).plain.splitlines()
    assert max(map(len, many)) <= 84
    assert curve([], {"limit": 5.0}, 80).plain.count("5.00") == 1


# ── matrix ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def few(monkeypatch):
    kept = {name: registry._REGISTRY[name] for name in FEW}
    monkeypatch.setattr(registry, "_REGISTRY", kept)
    agents.register("late", kept["boulware_hard"].factory, family="boulware", defaults={"exponent": 8.0},
                    split="held_out")  # fmt: skip


@pytest.mark.usefixtures("few")
@pytest.mark.slow
def test_matrix_writes_the_zoo_the_same_twice(capsys, tmp_path):
    for run in ("a", "b"):
        options = ["matrix", "--json", "--games", "4", "--seed", "3", "--scenarios", "paper,no_deal"]
        folders = ["--out", str(tmp_path / run), "--docs", str(tmp_path / run / "docs")]
        found = json.loads(command(capsys, *options, *folders))
    names = [f"zoo_{preset}.{kind}" for preset in ("paper", "no_deal") for kind in ("png", "csv")]
    assert [Path(path).name for path in found["files"]] == ["zoo.md", *names]
    for path in (tmp_path / "a/docs").iterdir():
        assert path.read_bytes() == (tmp_path / "b/docs" / path.name).read_bytes(), path.name
    text = (tmp_path / "a/docs/zoo.md").read_text()
    assert str(tmp_path) not in text
    assert "matrix --scenarios paper,no_deal --games 4 --seed 3`" in text
    for preset in ("paper", "no_deal"):
        assert f"(zoo_{preset}.png)" in text
        assert f"(zoo_{preset}.csv)" in text
        document = summary.read(tmp_path / "a" / preset)
        ranking = document["ranking"]
        assert found["best"][preset] == ranking[0]["agent"]
        part = text.split(f"## {preset}\n")[1].split("\n## ")[0]
        rows = [
            [cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| ")
        ][1:]
        assert [row[1] for row in rows] == [f"`{r['agent'].removeprefix('script:')}`" for r in ranking]
        assert [float(row[4]) for row in rows] == pytest.approx([r["utility"] for r in ranking], abs=6e-4)
        assert sorted(row[1] for row in rows) == sorted(f"`{n}`" for n in (*FEW[:4], "late"))
        assert [row[3] for row in rows if row[1] == "`late`"] == ["held out"]
        assert len(document["cells"]) == 2 * 5 * 5
        assert all(c["utility_low"] <= c["utility"] <= c["utility_high"] for c in document["cells"])


@pytest.mark.usefixtures("few")
def test_the_table_of_pairs_by_hand(capsys, tmp_path):
    options = ["matrix", "--quiet", "--games", "6", "--seed", "3", "--scenarios", "no_deal"]
    command(capsys, *options, "--out", str(tmp_path), "--docs", str(tmp_path / "docs"))
    with (tmp_path / "docs/zoo_no_deal.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    names = [*FEW[:4], "late"]
    assert [(row["agent"], row["opponent"]) for row in found] == [(a, b) for a in names for b in names]
    assert list(found[0]) == list(zoo.PAIR_COLUMNS)
    games = results.read(tmp_path / "no_deal").to_pylist()
    empty = 0
    for row in found:
        mine = [g for g in games if (g["agent"], g["opponent"]) == (f"script:{row['agent']}", row["opponent"])]
        assert len(mine) == 12, "six scenarios from both seats"
        utility = np.array([g["utility"] for g in mine])
        assert float(row["utility"]) == pytest.approx(utility.mean(), abs=5.1e-4)
        assert float(row["agreement_rate"]) == pytest.approx(np.mean([g["agreement"] for g in mine]), abs=5.1e-4)
        for seat in ("buyer", "seller"):
            rho = [g["rho_achieved"] for g in mine if g["agent_seat"] == seat and g["rho_achieved"] is not None]
            assert (
                row[f"rho_as_{seat}"] == ""
                if not rho
                else float(row[f"rho_as_{seat}"]) == pytest.approx(np.mean(rho), abs=5.1e-4)
            )
            empty += not rho
        by_scenario = np.zeros(6)
        np.add.at(by_scenario, [g["scenario_id"] for g in mine], utility)
        low, high = statistics.ratio_intervals(by_scenario[:, None], np.full((6, 1), 2.0), seed=3)
        assert (float(row["low"]), float(row["high"])) == pytest.approx((low[0], high[0]), abs=5.1e-4)
        assert float(row["low"]) <= float(row["utility"]) <= float(row["high"])
    assert empty < len(found), "most pairs settle from some seat"


@pytest.mark.usefixtures("few")
def test_a_matrix_in_which_nobody_can_answer(capsys, tmp_path):
    line = f"matrix --games 3 --scenarios paper --max-turns 1 --quiet --out {tmp_path}"
    command(capsys, *line.split())
    text = (tmp_path / "zoo.md").read_text()
    assert "| 0.0 % | – | – |" in text
    rows = (tmp_path / "zoo_paper.csv").read_text().splitlines()[1:]
    assert len(rows) == 25
    assert all(row.endswith(",0.000,0.000,0.000,0.000,,") for row in rows)
    assert (tmp_path / "paper/report.html").read_text().startswith("<!")


def test_who_knows_both_limits_is_in_no_list_but_can_be_shown(capsys):
    listed = [row["name"] for row in json.loads(command(capsys, "list", "--json"))]
    cheating = [row["name"] for row in json.loads(command(capsys, "list", "--cheating", "--json"))]
    assert "zopa_split" in cheating
    assert not set(cheating) & set(listed)
    assert not set(cheating) & set(opponents.resolve("scripts,all,held_out"))
    assert opponents.resolve("zopa_split") == ["zopa_split"]  # by name it may be met
    found = shown(capsys, "zopa_split", "--buyer-max", "1000")
    assert {move["price"] for move in found["moves"]} == {700.0}
    assert "is told both limits" in command(capsys, "show", "zopa_split")


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────────────────────────

BAD = {
    "nothing": ("", "Missing subcommand"),
    "subcommand": ("shw", "list, show, matrix"),
    "no_name": ("show", "Required"),
    "name": ("show boulware_hrad", "did you mean 'boulware_hard'"),
    "seat": ("show fair --seat byer", "'buyer', 'seller'"),
    "number": ("show fair --tick x", "--tick"),
    "range": ("show fair --buyer-max 5000", "buyer_max 5000.0 must lie in the public range"),
    "infinite": ("show fair --price-high inf", "price_high inf must be a finite number"),
    "turns": ("show fair --max-turns 0", "--max-turns 0"),
    "seed": ("show fair --seed=-1", "--seed -1"),
    "width": ("show fair --assumed-width=-3", "must be a positive number"),
    "no_width": (
        "show zopa_split --assumed-width 500",
        "--assumed-width 500: zopa_split assumes no width; drop the option",
    ),
    "cheats_cheat": (
        "show best_response:best_response:fair",
        "is told both limits itself; name a strategy that is not",
    ),
    "option": ("list --famly fair", "--famly"),
    "family": ("list --family fai", "did you mean 'fair'"),
    "scenario": ("matrix --scenarios papr", "did you mean 'paper'"),
    "scenarios": ("matrix --scenarios ,", "--scenarios is empty"),
    "games": ("matrix --games 0", "--games 0"),
    "plugin": ("list --plugin /no/such.py", "no such file"),
}


@pytest.mark.parametrize(("line", "message"), BAD.values(), ids=BAD.keys())
def test_mistakes_are_one_line(capsys, line, message):
    with pytest.raises(SystemExit) as stop:
        command(capsys, *line.split())
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert message in printed.err


def test_runs_as_a_file_and_as_a_module():
    for way in ([str(ROOT / "experiments/strategies.py")], ["-m", "experiments.strategies"]):
        arguments = [sys.executable, *way, "show", "hardliner", "--assumed_width", "500", "--json"]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["moves"][-1] == {"turn": 19, "action": "OFFER", "price": 895.0}
