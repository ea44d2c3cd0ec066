"""``modelling:`` specs: Janus with persona adapters as models of its opponent.

    modelling:runs/personas/lora_per_user
    modelling:runs/personas?personas=16&known=0.9&janus=runs/mine/adapter

What follows ``?`` are options: the fields of `agents.modelling.ModellingSettings`; ``janus``, who plays, janus-nano by
default; and ``base``, what the persona adapters are loaded on, if not the base that they were trained on by name.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import agents
from agents.modelling import ModellingSettings, Pool
from bargain_env import Policy, Preset
from bargain_env.errors import InputError, unknown

from .arms import SHIPPED, Floats, JanusOptions, JanusSpec, janus_spec

MODELLING = "modelling:"
ARMS = ("both", "text", "gates")
"""Of the Janus that plays: one with a dial."""
_TYPES = {field.name: (int if field.type == "int" else float) for field in fields(ModellingSettings)}


@dataclass(frozen=True, slots=True)
class ModellingSpec:
    """A spec, taken apart and checked; nothing is loaded yet.

    Attributes:
        label: as it was named.
        folder: of the persona adapters.
        janus: who plays.
        settings: of the player.
        base: as given; empty for the adapters' own.
    """

    label: str
    folder: Path
    janus: JanusSpec
    settings: ModellingSettings
    base: str

    def policy(self, rho: Floats, options: JanusOptions, preset: Preset) -> Policy:
        """The player at ``rho``, one or ``[B]``; torch is imported here.

        Raises:
            InputError: Janus or the adapters cannot be loaded.
        """
        janus: Any = self.janus.policy(rho, options, preset.name)
        pool = self.pool()
        made = agents.ModellingAgent(janus, pool, self.settings, width=preset.known_width)
        made.load()
        made.name = self.label
        policy: Policy = made
        return policy

    def pool(self) -> Pool:
        """The adapters that there are.

        Raises:
            InputError: none can be used.
        """
        from experiments.persona.pool import read_pool

        return read_pool(self.folder, self.base or None)

    def files(self) -> list[str]:
        """All files and folders that its moves depend on."""
        from experiments.persona.pool import files_of

        given = [self.janus.adapter] if self.janus.given else []
        return [*map(str, files_of(self.folder)), *given, *([self.base] if self.base else [])]


@lru_cache(maxsize=64)
def modelling_spec(text: str) -> ModellingSpec | None:
    """The player that ``text`` names; None if it names something else.

    Raises:
        InputError: the folder is not there, or an option is unknown or cannot have its value.
    """
    if not text.startswith(MODELLING):
        return None
    place, _, query = text.removeprefix(MODELLING).partition("?")
    options = _options(text, query)
    if not place:
        raise InputError(f"agent {text!r}: give the folder of the persona adapters, {MODELLING}runs/personas")
    if not Path(place).is_dir():
        raise InputError(
            f"agent {text!r}: no persona adapters at {place!r}; make them with `python -m experiments.personas make` and "
            "`train`"
        )
    from experiments.persona.pool import home_of

    home_of(Path(place))  # said before anything is loaded or played
    return ModellingSpec(text, Path(place), _janus(text, options), _settings(text, options), options.get("base", ""))


def _options(text: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise InputError(f"{text!r}: {error}; options are written ?NAME=VALUE&NAME=VALUE") from error
    for name, _ in pairs:
        if name not in (*_TYPES, "janus", "base"):
            raise unknown("option", name, (*_TYPES, "janus", "base"))
    if len(dict(pairs)) < len(pairs):
        raise InputError(f"{text!r} gives an option twice; give it once")
    return dict(pairs)


def _janus(text: str, options: dict[str, str]) -> JanusSpec:
    """Who plays: ``janus-nano``, or a folder, either as a spec has it or as its path."""
    name = options.get("janus", SHIPPED)
    spec = janus_spec(f"janus:{name}" if Path(name).is_dir() else name)
    if spec is None or spec.arm not in ARMS:
        raise InputError(f"{text!r}: janus={name} is no Janus with a dial; give {SHIPPED} or the folder of an adapter")
    return spec


def _settings(text: str, options: dict[str, str]) -> ModellingSettings:
    chosen: dict[str, Any] = {}
    for name, convert in _TYPES.items():
        if name in options:
            try:
                chosen[name] = convert(options[name])
            except ValueError:
                raise InputError(f"{text!r}: {name} cannot be {options[name]!r}") from None
    try:
        return ModellingSettings(**chosen)
    except InputError as error:
        raise InputError(f"{text!r}: {error}") from None
