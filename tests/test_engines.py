"""Workers: they give the bytes that one process gives, their plugins and errors included, and may die one by one."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from agents import registry
from bargain_env import Seat
from bargain_env.errors import InputError
from experiments import cli, tournament
from experiments.match import arena, engines, shard_player
from experiments.match.engines import WorkersDiedError

ROOT = Path(__file__).resolve().parents[1]
FILES = ("episodes.parquet", "report.html", "summary.csv", "summary.json")
PLUGIN = '''
"""Many small shards, and a strategy of its own."""
import os, pathlib, signal
import agents
from experiments.match import arena
from experiments.reporting import landmarks

landmarks.GAMES = 1
arena.SCRIPT_ROWS = arena.BLOCK_ROWS = 8
here = pathlib.Path(__file__).parent


class Mine:
    name = "mine"

    def __init__(self, assumed_zopa_width=None):
        self.inner = agents.make("fair", assumed_zopa_width=assumed_zopa_width)

    def reset(self, games):
        {reset}
        self.inner.reset(games)

    def act(self, view):
        return self.inner.act(view)


agents.register("mine", Mine)
'''
KILLED = """
        if (here / "kill").exists() and games.id.min() >= 6 and int((here / "kill").read_text()) != os.getpid():
            left = int((here / "times").read_text())
            if left:
                (here / "less").write_text(str(left - 1))  # the other worker never reads half a number
                (here / "less").replace(here / "times")
                os.kill(os.getpid(), signal.SIGKILL)
"""
FAILED = """
        if __import__("multiprocessing").parent_process():
            raise ZeroDivisionError("of mine")
"""


@pytest.fixture(autouse=True)
def own_settings(monkeypatch):
    """What a plugin changes is undone, and nobody waits for charts or for what other scripts would have done."""
    monkeypatch.setattr(arena, "SCRIPT_ROWS", arena.SCRIPT_ROWS)
    monkeypatch.setattr(arena, "BLOCK_ROWS", arena.BLOCK_ROWS)
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(tournament.landmarks, "GAMES", 1)


def plugin(folder, reset="pass"):
    path = folder / "plugin.py"
    path.write_text(PLUGIN.format(reset=reset.strip()))
    return path


def settings(out, **changes):
    base = {"agents": "script:mine,script:linear_standard", "opponents": "mine,tit_for_tat", "games": 12}
    return tournament.Settings(**{**base, "scenario": "paper", "out": out, "quiet": True, **changes})


def run(*arguments, **changes):
    """A tournament, with a registry as a new process has it."""
    registry._REGISTRY.pop("mine", None)
    return tournament.run(settings(*arguments, **changes))


def same(a, b):
    for name in FILES:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert sorted(path.name for path in b.iterdir()) == sorted(FILES)


def test_two_workers_write_what_one_process_writes(tmp_path):
    file = plugin(tmp_path)
    run(tmp_path / "one", plugin=file)
    run(tmp_path / "two", plugin=file, workers=2)
    run(tmp_path / "other", plugin=file, workers=2, seed=1)
    same(tmp_path / "one", tmp_path / "two")
    tables = [pq.read_table(tmp_path / name / FILES[0]) for name in ("one", "other")]
    assert len(tables[0]) == len(tables[1]) == 2 * 2 * 2 * 12
    assert tables[0]["offers"] != tables[1]["offers"]


@pytest.fixture
def deadly(tmp_path):
    """A plugin whose strategy kills a worker, never this process, as often as ``times`` says."""
    file = plugin(tmp_path, KILLED)
    (tmp_path / "kill").write_text(str(os.getpid()))
    (tmp_path / "times").write_text("0")
    return file


def test_a_worker_that_dies_is_named_and_the_rest_goes_on(tmp_path, deadly, capsys):
    run(tmp_path / "whole", plugin=deadly)
    (tmp_path / "times").write_text("1")
    run(tmp_path / "two", plugin=deadly, workers=2, quiet=False)
    assert (tmp_path / "times").read_text() == "0"
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == 1
    assert "killed by SIGKILL, as when memory runs out" in warned[0]
    assert "while playing team 0 as buyer, scenarios 6 to 7" in warned[0]
    same(tmp_path / "whole", tmp_path / "two")


def test_no_worker_left(tmp_path, deadly):
    run(tmp_path / "whole", plugin=deadly)
    (tmp_path / "times").write_text("9")
    with pytest.raises(InputError) as caught:
        run(tmp_path / "two", plugin=deadly, workers=2)
    kept = len(list((tmp_path / "two/shards").glob("*.parquet")))
    assert kept >= 3
    command = (
        "python -m experiments.tournament --agents script:mine,script:linear_standard --opponents mine,tit_for_tat "
    )
    assert f"{kept} of 12 shards are kept; continue with: {command}" in str(caught.value)
    assert f"--workers 2 --plugin {deadly} --quiet" in str(caught.value)
    run(tmp_path / "two", plugin=deadly)  # in this process, which is spared
    same(tmp_path / "whole", tmp_path / "two")


def test_an_error_of_a_worker_is_told(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)in a worker:.*ZeroDivisionError: of mine"):
        run(tmp_path / "out", plugin=plugin(tmp_path, FAILED), workers=2)
    assert not list((tmp_path / "out").iterdir())


def test_workers_that_understand_something_else_are_refused(tmp_path):
    file = plugin(tmp_path)
    text = (
        file.read_text()
        + "\nimport multiprocessing\narena.SCRIPT_ROWS = 8 if multiprocessing.parent_process() else 16\n"
    )
    file.write_text(text)
    with pytest.raises(InputError, match="understands the settings otherwise"):
        run(tmp_path / "out", plugin=file, workers=2)


class Crew:
    """Workers of whom some die."""

    def __init__(self, deadly, workers):
        self.deadly, self.busy = deadly, {}

    def ask(self, worker, number):
        assert worker not in self.busy
        self.busy[worker] = number

    def answers(self):
        worker = max(self.busy)
        number = self.busy.pop(worker)
        died = (worker, number) in self.deadly
        return [(worker, "of something" if died else shard_player.Finished(number, b"", []))]


def test_who_gets_what_when_workers_die():
    shards = [arena.Shard(0, Seat.BUYER, n, 1, 1) for n in range(6)]
    warned = []

    def drive(deadly):
        warned.clear()
        return [f.number for f in engines._drive(Crew(deadly, 3), 3, range(6), shards, warned.append)]

    assert drive(set()) == [2, 3, 4, 5, 1, 0]
    assert sorted(drive({(2, 3), (1, 1)})) == list(range(6))
    assert [text.split(" (")[0] for text in warned] == ["worker 2 died", "worker 1 died"]
    with pytest.raises(WorkersDiedError, match="all 3 workers died; 6 shards are left"):
        drive({(2, 2), (1, 1), (0, 0)})
    with pytest.raises(WorkersDiedError, match=r"two workers died while playing team 0.*scenarios 2 to 2"):
        drive({(2, 2), (1, 2), (0, 2)})


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    assert condition()


SLOW = "__import__('time').sleep(0.3 if (here / 'out/shards').exists() else 0)"  # landmarks are found before


def gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def hear_ctrl_c():
    """In the child: what is started in the background of a shell script ignores Ctrl-C, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_says_how_to_continue(tmp_path, workers):
    file, out = plugin(tmp_path, SLOW), tmp_path / "out"
    given = ["--agents", "script:mine", "--opponents", "mine", "--games", "48", "--scenario", "paper", "--quiet"]
    command = [sys.executable, "-m", "experiments.tournament", *given, "--plugin", str(file), "--out", str(out)]
    command += ["--workers", str(workers)] if workers > 1 else []
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=hear_ctrl_c
    )
    wait_for(lambda: len(list(out.glob("shards/*.parquet"))) > 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it too
    last = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130
    kept = len(list(out.glob("shards/*.parquet")))
    assert 1 < kept < 12
    assert len(last) == 1
    words = last[0].split("continue with: python ")
    assert words[0] == f"interrupted; {kept} of 12 shards are kept; "
    assert sorted(words[1].split()) == sorted(command[1:])
    wait_for(lambda: gone(process.pid))


def test_workers_end_with_who_started_them(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "experiments.tournament", "--agents", "script:mine", "--opponents", "mine"]
    command += [
        "--games",
        "48",
        "--scenario",
        "paper",
        "--workers",
        "2",
        "--plugin",
        str(plugin(tmp_path, SLOW)),
        "--out",
        str(out),
        "--quiet",
    ]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    wait_for(lambda: list(out.glob("shards/*.parquet")))
    process.kill()
    process.wait()
    wait_for(lambda: gone(process.pid))
    assert (out / "shards/plan.json").exists()


def test_the_command_that_continues(tmp_path):
    given = tournament.Settings(agents="a b", config=("x=0/1", "neutral"), fresh=True, workers=3, out=tmp_path, games=7)
    text = tournament.resume_command(given)
    assert text.startswith("python -m experiments.tournament --agents 'a b' --config x=0/1 neutral --games 7 ")
    assert "fresh" not in text
    again = cli.parse(tournament.Settings, tournament.shlex.split(text)[3:])
    assert again == replace(given, fresh=False)


def test_ray_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"--engine ray needs Ray; install it with pip install 'bargain-lab\[ray\]'"):
        run(tmp_path / "out", agents="script:fair", opponents="fair", engine="ray")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_ray_writes_the_same(tmp_path):
    pytest.importorskip("ray")
    file = plugin(tmp_path)
    run(tmp_path / "one", plugin=file)
    run(tmp_path / "ray", plugin=file, workers=2, engine="ray")
    same(tmp_path / "one", tmp_path / "ray")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["process", "ray"])
def test_janus_is_the_same_in_all_engines(tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray")
    file = plugin(tmp_path)
    chosen = {
        "agents": "janus-nano,shuffled",
        "opponents": "tit_for_tat,fair",
        "rho": "0.2,0.8",
        "games": 4,
        "threads": 1,
    }
    run(tmp_path / "one", plugin=file, **chosen)
    run(tmp_path / "two", plugin=file, workers=2, engine=engine, **chosen)
    same(tmp_path / "one", tmp_path / "two")
