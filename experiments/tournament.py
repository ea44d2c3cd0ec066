"""Tournament: agents against the zoo, from both seats, at every ρ; with intervals and a report.

    python -m experiments.tournament --agents janus-nano --rho 0:1:0.1 --strategies all --games 40 --scenario paper

Every agent, ρ and opponent meets the same scenarios with the same luck. The folder receives ``episodes.parquet`` (one
row a game), ``summary.json``, ``summary.csv`` (its cells) and ``report.html``; a second run writes the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import functools
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console

from agents.text.spec import TEXT
from bargain_env import DEFAULT_PRESET, PRESETS, Seat
from bargain_env.errors import InputError, unknown
from bargain_env.files import locked
from experiments import cli, report
from experiments.match import arena, configs, contestants, engines, merge, opponents, protocol, results
from experiments.match.engines import WorkersDiedError
from experiments.match.identity import Identity, identify
from experiments.match.live import Scoreboard
from experiments.match.shard_player import Job, ShardPlayer
from experiments.match.store import ShardStore
from experiments.plugins import load_plugin
from experiments.reporting import landmarks, published, summary
from experiments.versions import versions

GAMES = 40
LOCK = ".running"
"""In the folder of a tournament while one is played into it."""


@dataclass(frozen=True)
class Settings:
    """Play a tournament and write its episodes, summary and report."""

    agents: str = "janus-nano"
    """Comma list: janus-nano, janus:PATH, either with @text (gates frozen at their mean) or @gates (prompt fixed), lora or
    lora:PATH (a plain LoRA, see experiments.ablations), base (no adapter), shuffled (control: permuted rho), script:NAME,
    scripts, teacher:PATH (of experiments.teacher: a file, or a folder with PRESET.safetensors), learned:PATH (.zip of
    Stable-Baselines3), text:MODEL_DIR or text:http://HOST:PORT/v1#MODEL (a chat model by prompt), modelling:DIR (Janus with
    the persona adapters of experiments.personas as models of its opponent)."""
    rho: str | None = None
    """Requested rho, a list a,b,c or start:stop:step, each in [0, 1] or -1 (asks for an impasse). Scripts take none.
    By default 0:1:0.1, or with --config its values alone."""
    config: tuple[str, ...] = ()
    """Named requests NAME=BUYER/SELLER, a rho for each seat, beside those of --rho: standard=0.2/0.8 extreme=0/1
    flipped=0.8/0.2 neutral=0.5/0.5. These four are known by name alone."""
    opponents: Annotated[str | None, tyro.conf.arg(aliases=["--strategies"])] = None
    """Comma list of strategy names or groups: all or scripts (the default), train, held_out, validation (the set to tune and
    calibrate on), family:F, population:N (drawn members of all families; also population:N@train, population:N@held_out),
    learned:PATH, text:…, or another Janus: janus-nano, janus:PATH, lora, base, each once for every --opponent-rho."""
    opponent_rho: str | None = None
    """What a Janus among the opponents is asked for, as --rho; by default 0.5."""
    games: int | None = None
    """Scenarios, by default 40; each is one game of every agent x seat x rho x opponent."""
    seats: Literal["both", "buyer", "seller"] = "both"
    """Where the agents sit."""
    scenario: str | None = None
    """Preset that scenarios are drawn from: paper, hidden (the default) or no_deal."""
    protocol: Literal["paper"] | None = None
    """Play a published protocol, which fixes rho, opponents, scenario, seats and turns: paper is 50 games a matchup, half of
    them in each seat, 22 scripts and five configurations; its figures are printed beside the published ones."""
    seed: int = 0
    """Determines scenarios, moves and resampling."""
    out: Path = Path("runs/tournament")
    """Folder for the results."""
    max_turns: int = 20
    """Moves of both seats together."""
    decode: str = "median"
    """How Janus turns probabilities into a move: median, mean, quantile:0.3, greedy, sample, sample:0.7, or free (the model
    writes and its text is read; what is no answer becomes an offer of the reservation, counted in fallback_moves)."""
    guard: Literal["ir", "monotone", "none"] = "monotone"
    """Keep Janus from deals and offers beyond its own limit (ir), and from taking offers back too (monotone); every
    replaced move is counted, and what Janus had decided is recorded beside it."""
    base: str | None = None
    """Base to load adapters given by PATH on, if not the one that their config names."""
    allow_base_mismatch: bool = False
    """Load them on a base that they were not trained on, which is refused otherwise."""
    precision: Literal["trained", "dense", "nf4"] = "trained"
    """Of the bases: the one trained on, dense weights, or 4 bits."""
    raw_dial: bool = False
    """Set every dial to what is asked for, whatever map experiments.calibrate has given its adapter."""
    batch_size: int = 256
    """Rows of one forward pass of Janus."""
    threads: int = 2
    """Torch threads."""
    workers: int = 1
    """Processes that play at once, each with its own models and --threads, which together should not be more than the cores.
    The results are the same bytes for any number."""
    engine: Literal["process", "ray"] = "process"
    """Who the workers are: processes of this machine, or Ray actors (needs the ray extra; RAY_ADDRESS names a cluster)."""
    fresh: bool = False
    """Discard unfinished shards that are found in --out instead of continuing them."""
    plugin: Path | None = None
    """Python file that calls agents.register, run first."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the overall results as JSON on stdout, and nothing else."""


def run(settings: Settings) -> dict[str, Any]:
    """Play, write and return the summary; what an interrupted run had finished is not played again.

    Raises:
        InputError: a setting that cannot be used, before anything is played, or no worker is left alive.
        KeyboardInterrupt: as it came, with a message that says how to continue.
    """
    players, plan = prepared(settings)
    folder = cli.output_folder(settings.out)
    for option in ignored(settings, players, plan):
        cli.warner(settings.quiet)(f"{option} has nothing to act on: nobody here plays by it")
    for player in players:
        if not player.scripted:  # what cannot be loaded should not be found out after an hour of play
            player.build(np.array(plan.rho[plan.seats[0]][:1]) if player.takes_rho else None, plan.preset)
    opponents.load(plan.opponents, plan.preset, plan.janus)
    console = cli.console(settings.quiet or settings.json)
    console.print(_heading(players, plan), soft_wrap=True, markup=False)
    with locked(folder / LOCK, f"another run plays into {folder}; wait for it, or choose another --out"):
        found, files = _results(settings, players, plan, folder, console)
    if settings.json:
        print(json.dumps({"overall": found["overall"], "files": [str(f) for f in files]}, ensure_ascii=False))
    if settings.protocol:
        console.print(published.shown(found))
    console.print(f"wrote {', '.join(str(f) for f in files)}", soft_wrap=True, markup=False)
    again = f"python -m experiments.report {folder} --plots"
    console.print(f"the report again, with its charts as files: {again}", soft_wrap=True, markup=False)
    return found


def _results(
    settings: Settings, players: list[contestants.Contestant], plan: arena.Plan, folder: Path, console: Console
) -> tuple[dict[str, Any], list[Path]]:
    """Play what is missing and write all files; the summary, and where they are."""
    marks = landmarks.landmarks(plan)  # before the games: what cannot be asked should not cost them
    marks["scripts"] = landmarks.absent_scripts(plan, players)
    shards = arena.shards(players, plan)
    identity = identify(described(settings, players, plan), players, plan, (settings.plugin, settings.base))
    store = ShardStore(folder, identity, shards, cli.warner(settings.quiet), fresh=settings.fresh)
    try:
        _play(settings, players, plan, store, identity, console)
        merged = store.folder / results.EPISODES
        results.write_pieces(merge.merged(arena.teams(players), plan, shards, store.paths), merged)
        found = summary.summarise(merged, described(settings, players, plan))
        found |= {"landmarks": summary.clean(marks), "strategies": landmarks.strategies(plan, players)}
        found["versions"] = versions()
        if settings.protocol:
            found["protocol"] = summary.clean(published.figures(results.read(store.folder), found["settings"]))
        page = report.write(found, merged, folder)  # first: if it fails, the earlier files stay
        files = [merged.replace(folder / results.EPISODES), *summary.write(found, folder), page]
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {_continuing(settings, store, shards)}") from None
    except WorkersDiedError as error:
        raise InputError(f"{error}; try fewer --workers; {_continuing(settings, store, shards)}") from error
    finally:
        store.close()
    store.discard()
    return found, files


def _play(
    settings: Settings,
    players: list[contestants.Contestant],
    plan: arena.Plan,
    store: ShardStore,
    identity: Identity,
    console: Console,
) -> None:
    """Play the shards that the store does not hold yet, into it."""
    kept = store.resume()
    player = ShardPlayer(players, plan, identity)
    missing = [number for number in range(len(player.shards)) if number not in kept]
    if kept:
        console.print(
            f"continuing: {len(kept)} of {len(player.shards)} shards were finished", soft_wrap=True, markup=False
        )
    elif len(missing) > 1:
        text = f"{len(missing)} shards, kept in {store.folder} as they finish: the same command continues an interrupted run"
        console.print(text, soft_wrap=True, markup=False)
    job = Job(functools.partial(prepared, settings), identity, plan, player.shards)
    with Scoreboard(console, sum(plan.rows(p) for p in players), plan.seats) as board:
        board.resume(kept.values())
        for finished in engines.play(
            player, job, missing, settings.workers, settings.engine, cli.warner(settings.quiet)
        ):
            store.put(finished.number, finished.content)
            board.count(finished.found)


def ignored(settings: Settings, players: Sequence[contestants.Contestant], plan: arena.Plan) -> list[str]:
    """Options that were given and that no player of the tournament takes."""
    names = [*(player.label for player in players), *plan.opponents]
    dial = any(player.takes_rho for player in players)
    janus = any(opponents.janus_of(name) is not None for name in names)
    guarded = janus or any(name.startswith(TEXT) for name in names)
    takes = {"rho": dial, "config": dial, "decode": janus, "precision": janus, "batch_size": janus, "raw_dial": janus,
             "guard": guarded}  # fmt: skip
    default = Settings()
    given = [name for name, taken in takes.items() if not taken and getattr(settings, name) != getattr(default, name)]
    return [f"--{name.replace('_', '-')}" for name in given]


def _continuing(settings: Settings, store: ShardStore, shards: list[arena.Shard]) -> str:
    """How to continue a tournament that was stopped."""
    command = resume_command(settings)
    if not store.paths:
        return f"no shard was finished; start again with: {command}"
    return f"{len(store.paths)} of {len(shards)} shards are kept; continue with: {command}"


def resume_command(settings: Settings) -> str:
    """The command line of these settings, without what it asked to discard."""
    words = ["python", "-m", "experiments.tournament"]
    for field in fields(Settings):
        value = getattr(settings, field.name)
        if value != field.default and field.name != "fresh":
            values = [] if value is True else map(str, value if isinstance(value, tuple) else [value])
            words += [f"--{field.name.replace('_', '-')}", *values]
    return shlex.join(words)


def prepared(settings: Settings) -> tuple[list[contestants.Contestant], arena.Plan]:
    """`prepare`, after the plugin has been run; workers call it too.

    Raises:
        InputError: a setting that cannot be used.
    """
    if settings.plugin is not None:
        load_plugin(settings.plugin)
    players, plan = prepare(settings)
    arena.check(players, plan)
    return players, plan


def prepare(settings: Settings) -> tuple[list[contestants.Contestant], arena.Plan]:
    """The contestants and the plan that the settings ask for.

    Raises:
        InputError: a setting that cannot be used.
    """
    if settings.protocol:
        settings = protocol.applied(settings)
    for name in ("batch_size", "threads", "workers"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} {getattr(settings, name)} must be at least 1")
    scenario = DEFAULT_PRESET if settings.scenario is None else settings.scenario
    if scenario not in PRESETS:
        raise unknown("scenario", scenario, PRESETS)
    options = contestants.JanusOptions(
        **{f.name: getattr(settings, f.name) for f in fields(contestants.JanusOptions)}  # they have the same names here
    )
    opposite = "all" if settings.opponents is None else settings.opponents
    contestants.check_base(options, settings.agents, opposite)
    asked = None if settings.opponent_rho is None else cli.parse_grid(settings.opponent_rho, "--opponent-rho")
    plan = arena.Plan(
        opponents=tuple(opponents.resolve(opposite, rho=asked, seed=settings.seed)),
        rho=configs.grids(settings.rho, configs.parse(settings.config)),
        games=GAMES if settings.games is None else settings.games,
        seats=tuple(Seat) if settings.seats == "both" else (Seat[settings.seats.upper()],),
        preset=PRESETS[scenario],
        seed=settings.seed,
        max_turns=settings.max_turns,
        janus=options,
    )
    players = contestants.resolve_agents(settings.agents, options)
    return protocol.seated(players) if settings.protocol else players, plan


def described(settings: Settings, players: list[contestants.Contestant], plan: arena.Plan) -> dict[str, Any]:
    """What the results depend on, as ``summary.json`` records it: names resolved, paths of the machine left out."""
    chosen = protocol.applied(settings) if settings.protocol else settings
    return {
        "agents": [p.label for p in players],
        "controls": [p.label for p in players if p.control],
        "arms": {p.label: p.arm for p in players if p.arm},
        "rho": sorted({r for p in players if p.takes_rho for seat in plan.seats for r in plan.requests(p, seat)}),
        "grids": {seat.label: list(plan.rho[seat]) for seat in plan.seats if any(p.takes_rho for p in players)},
        "configurations": {name: list(pair) for name, pair in configs.parse(chosen.config).items()},
        "protocol": settings.protocol,
        "opponents": list(plan.opponents),
        "games": plan.games,
        "seats": [seat.label for seat in plan.seats],
        "scenario": plan.preset.name,
        "seed": plan.seed,
        "max_turns": plan.max_turns,
        "decode": settings.decode,
        "guard": settings.guard,
        "base": settings.base,
        "allow_base_mismatch": settings.allow_base_mismatch,
        "precision": settings.precision,
        "raw_dial": settings.raw_dial,
        "batch_size": settings.batch_size,
        "threads": settings.threads,
    }


def _heading(players: list[contestants.Contestant], plan: arena.Plan) -> str:
    labels = [p.label for p in players]
    shown = ", ".join(labels) if len(labels) <= 4 else f"{', '.join(labels[:3])} and {len(labels) - 3} more"
    grids = {seat.label: ", ".join(map(results.rho_text, plan.rho[seat])) for seat in plan.seats}
    each = [next(iter(grids.values()))] if len(set(grids.values())) == 1 else [f"{g} as {s}" for s, g in grids.items()]
    rho = f" at rho {' and '.join(each)}" if any(p.takes_rho for p in players) else ""
    seats = " and ".join(s.label for s in plan.seats)
    return (
        f"tournament: {shown}{rho} against {len(plan.opponents)} opponents as {seats}, "
        f"{plan.games} scenarios of {plan.preset.name!r}, seed {plan.seed}: {sum(map(plan.rows, players)):,} games"
    )


if __name__ == "__main__":
    from experiments import tournament  # under its own name, by which workers find it

    cli.main(tournament.Settings, tournament.run)
