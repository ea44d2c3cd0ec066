"""Who sits opposite: opponents of a tournament by name, as `resolve` finds them and ``episodes.parquet`` names them.

A name is that of a strategy (``fair``), of a drawn member of a family (``micro(step=12.5)``), of a form (``learned:PATH``,
``text:…``), or of another Janus at its ρ (``janus-nano(0.30)``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import agents
from agents.validation import OPPONENTS as VALIDATION_OPPONENTS
from agents.validation import VALIDATION
from bargain_env import Policy, Preset, RoutedPolicy
from bargain_env.errors import InputError, unknown
from bargain_env.rho_grid import valid_rho

from .arms import JanusOptions, JanusSpec, janus_spec
from .modelling import modelling_spec
from .populations import POPULATION, population
from .results import rho_text
from .specs import split as split_list

AGENT = "agent"
"""The split, and the family, of opponents that are Januses."""
DEFAULT_RHO = (0.5,)
"""What a Janus in the opponent's seat is asked for unless ``--opponent-rho`` says otherwise."""
_AT_RHO = re.compile(r"(?P<spec>.+)\((?P<rho>-?\d+(?:\.\d+)?)\)")


def resolve(text: str, *, rho: Sequence[float] | None = None, seed: int = 0) -> list[str]:
    """Names of a comma list of names and groups, in order, without repeats.

    Groups are ``all`` or ``scripts`` (every evaluable strategy), ``train`` and ``held_out`` (those of a split),
    ``validation`` (the drawn members of `agents.validation`), ``family:F``, and ``population:N`` (see
    `experiments.match.populations`). A Janus (``janus-nano``, ``janus:PATH``, ``lora``, ``base``) is one opponent for each
    ρ.

    Args:
        text: as typed.
        rho: what a Janus is asked for; None for `DEFAULT_RHO`.
        seed: of populations.

    Raises:
        InputError: unknown name or family, an empty group, or a ρ that nobody takes.
    """
    specs = split_list(text, "--opponents")
    if rho is not None and not any(at_rho(spec) is None and janus_of(spec) for spec in specs):
        raise InputError(
            "--opponent-rho is for a Janus in --opponents (janus-nano, janus:PATH, lora or base); name one"
        )
    names = [name for spec in specs for name in _resolve(spec, DEFAULT_RHO if rho is None else rho, seed)]
    return list(dict.fromkeys(names))


def seated(names: Sequence[str], who: NDArray[np.intp], preset: Preset, options: JanusOptions) -> Policy:
    """The opponents of a batch as one policy; one for each batch.

    One adapter at several ρ is one player, so that it thinks for all of them in one forward pass.

    Args:
        names: of `resolve`.
        who: ``[B]`` which of them plays each game.
        preset: of the games.
        options: how Januses play.

    Raises:
        InputError: there is no such opponent, or it cannot be loaded.
    """
    known = [at_rho(name) for name in names]
    players = list(dict.fromkeys(name if found is None else found[0] for name, found in zip(names, known, strict=True)))
    player = np.array(
        [players.index(name if found is None else found[0]) for name, found in zip(names, known, strict=True)]
    )
    asked = np.array([np.nan if found is None else found[1] for found in known])
    policies: list[Policy] = [
        one.policy(asked[who[player[who] == k]], options, preset.name)
        if isinstance(one, JanusSpec)
        else agents.make_for(preset, one)
        for k, one in enumerate(players)
    ]
    return RoutedPolicy(policies, player[who], name="opponents")


def at_rho(name: str) -> tuple[JanusSpec, float] | None:
    """The Janus and its ρ that ``name`` is of; None for any other opponent.

    Raises:
        InputError: its adapter is not there.
    """
    found = None if Path(name.partition(":")[2] or " ").is_dir() else _AT_RHO.fullmatch(name)
    spec = None if found is None else janus_spec(found["spec"])
    return None if found is None or spec is None else (spec, float(found["rho"]))


def janus_of(name: str) -> JanusSpec | None:
    """The Janus that ``name``, of an agent or an opponent, is of, with a model of its opponent or not; None for others.

    Raises:
        InputError: its adapter is not there.
    """
    player = modelling_spec(name)
    if player is not None:
        return player.janus
    found = at_rho(name)
    return janus_spec(name) if found is None else found[0]


def about(name: str) -> dict[str, Any]:
    """``family``, ``split`` and whether it is ``cheating``, of any opponent."""
    if at_rho(name):
        return {"family": AGENT, "split": AGENT, "cheating": False}
    info = agents.describe(name)
    return {"family": info.family, "split": info.split, "cheating": info.cheating}


def split(name: str) -> str:
    """``train``, ``held_out``, ``validation`` or ``agent``, as ``episodes.parquet`` records it."""
    found: str = about(name)["split"]
    return found


def _resolve(spec: str, rho: Sequence[float], seed: int) -> list[str]:
    """The names of one part of the list."""
    kind, _, rest = spec.partition(":")
    if kind == "script":  # the spelling of --agents is understood here too
        return [_strategy(rest)]
    if spec.startswith(POPULATION):
        return population(spec, seed)
    named = at_rho(spec)
    found = janus_spec(spec) if named is None else named[0]
    if found is not None:
        if found.arm == "shuffled":
            raise InputError(
                "opponent 'shuffled' permutes what an agent is asked for, and nobody asks an opponent; leave it out"
            )
        asked = rho if named is None else [valid_rho(str(named[1]), f"--opponents {spec!r}")]
        return [f"{found.label}({rho_text(value)})" for value in asked]
    return _group(spec) or [_strategy(spec)]


def _group(spec: str) -> list[str]:
    """The strategies of a group; none if ``spec`` is no group."""
    kind, _, family = spec.partition(":")
    if kind == "family":
        families = {agents.describe(name).family for name in agents.list_strategies()}
        if family not in families:
            raise unknown("family", family, families)
        found = agents.list_strategies(family=family, evaluable=True)
    elif spec == VALIDATION:
        found = list(VALIDATION_OPPONENTS)
    elif spec in ("all", "scripts"):
        found = agents.list_strategies(evaluable=True)
    elif spec in ("train", "held_out"):
        found = agents.list_strategies(split=spec, evaluable=True)
    else:
        return []
    if not found:
        raise InputError(f"--opponents {spec!r} names no evaluable strategy; choose another group or name strategies")
    return found


def _strategy(spec: str) -> str:
    info = agents.describe(spec)
    if info.name.endswith(")") and not info.cheating:
        agents.make(info.name)  # whoever gives a member a parameter that it does not take hears of it now
    return info.name


def load(names: Sequence[str], preset: Preset, options: JanusOptions) -> None:
    """Load the Januses among ``names``: one that cannot be should not be found out after an hour of play.

    Raises:
        InputError: as `seated`.
    """
    for spec in dict.fromkeys(found[0] for name in names if (found := at_rho(name)) is not None):
        spec.policy(np.array(DEFAULT_RHO), options, preset.name)


def sources(name: str) -> list[str]:
    """Files and folders that a player, agent or opponent, is read from; or what is no path, where there are none."""
    player = modelling_spec(name)
    if player is not None:
        return player.files()
    spec = janus_of(name)
    if spec is None:
        return [name.partition(":")[2]]
    return [spec.adapter] if spec.given else []
