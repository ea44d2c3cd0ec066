"""Who plays: agent specs, such as ``janus-nano,janus-nano@text,script:linear_standard``, resolved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import agents
import agents.text
from agents.teacher import SUFFIX, Teacher, teacher_file
from bargain_env import Policy, Preset
from bargain_env.errors import InputError, unknown

from .arms import CONTROLS, FORMS, JanusOptions, JanusSpec, janus_spec
from .modelling import MODELLING, ModellingSpec, modelling_spec
from .opponents import janus_of
from .specs import split

Floats = NDArray[np.float64]
SCRIPT = "script:"
"""What the label of a scripted agent begins with."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """An agent of a tournament, not yet seated.

    Attributes:
        label: names it in every file and table.
        takes_rho: whether it plays once for each requested ρ; otherwise it plays one pass.
        build: ``(rho [B] or None, preset) -> Policy``; called for each batch, with the ρ that each row shall play at.
        shuffled: a control: its ρ are permuted between request and policy, so the dial must look dead.
        control: drawn as a control beside the agents under test.
        scripted: a scripted strategy: its moves do not depend on the batch it is in, so it shares one with other scripts.
        arm: of the ablation, one of `experiments.match.arms.ARMS`; empty for who is no Janus.
    """

    label: str
    takes_rho: bool
    build: Callable[[Floats | None, Preset], Policy]
    shuffled: bool = False
    control: bool = False
    scripted: bool = False
    arm: str = ""


def resolve_agents(text: str, options: JanusOptions | None = None) -> list[Contestant]:
    """The contestants of a comma list of specs, in order, without repeats.

    Raises:
        InputError: unknown spec or strategy, a checkpoint that is not there, or a base for adapters that nobody plays.
    """
    options, specs = options or JanusOptions(), split(text, "--agents")
    found: dict[str, Contestant] = {}
    for spec in specs:
        for contestant in _resolve(spec, options):
            found.setdefault(contestant.label, contestant)
    return list(found.values())


def check_base(options: JanusOptions, *lists: str) -> None:
    """Refuse a base for adapters where nobody plays one that was given by its path.

    Args:
        options: of the tournament.
        *lists: comma lists of who plays, in either seat.

    Raises:
        InputError: the base would be ignored.
    """
    if not (options.base or options.allow_base_mismatch):
        return
    played = (janus_of(spec) for text in lists for spec in split(text, "--agents and --opponents"))
    if not any(spec is not None and spec.given for spec in played):
        forms = "lora:PATH, janus:PATH, base:PATH, shuffled:PATH"
        raise InputError(f"--base and --allow-base-mismatch are for {forms}; name one of these in --agents")


def _resolve(spec: str, options: JanusOptions) -> list[Contestant]:
    kind, _, rest = spec.partition(":")
    if spec == "scripts":
        return [script(name) for name in agents.list_strategies(evaluable=True)]
    if kind == "script":
        return [script(agents.describe(rest).name)]
    if kind == "learned":
        return [learned(spec)]
    if kind == "teacher":
        return [teacher(spec)]
    if kind == "text":
        return [text_model(spec, options)]
    found = janus_spec(spec)
    if found is not None:
        return [janus(found, options)]
    player = modelling_spec(spec)
    if player is not None:
        return [modelling(player, options)]
    forms = [
        *FORMS,
        "learned:PATH",
        "teacher:PATH",
        "scripts",
        "script:NAME",
        "text:MODEL_DIR",
        "text:http://HOST:PORT/v1#MODEL",
        f"{MODELLING}ADAPTERS_DIR",
    ]
    if spec in agents.list_strategies():
        raise InputError(f"unknown agent {spec!r}; did you mean 'script:{spec}'? known: {', '.join(forms)}")
    raise unknown("agent", spec, forms)


def script(name: str) -> Contestant:
    """A scripted strategy as an agent, labelled ``script:NAME``."""
    return Contestant(
        f"{SCRIPT}{name}", takes_rho=False, build=lambda _, preset: agents.make_for(preset, name), scripted=True
    )


def learned(spec: str) -> Contestant:
    """A policy that Stable-Baselines3 saved, ``learned:PATH``."""
    name = agents.describe(spec).name
    return Contestant(name, takes_rho=False, build=lambda _, preset: agents.make_for(preset, name))


def teacher(spec: str) -> Contestant:
    """A goal-conditioned player of `experiments.teacher`, ``teacher:PATH``: a file, or a folder with one for each preset.

    Raises:
        InputError: there is no such file, or no file in the folder.
    """
    path = Path(spec.partition(":")[2])
    if not path.exists() or (path.is_dir() and not any(path.glob(f"*{SUFFIX}"))):
        raise InputError(f"agent {spec!r}: no teacher at {str(path)!r}; train one with `python -m experiments.teacher`")

    def build(rho: Floats | None, preset: Preset) -> Policy:
        if rho is None:
            raise ValueError(f"agent {spec!r} takes rho; give one for each game")
        return Teacher(teacher_file(path, preset.name), rho)

    return Contestant(spec, takes_rho=True, build=build)


def text_model(spec: str, options: JanusOptions) -> Contestant:
    """A chat model by prompt, ``text:…`` (see `agents.text.spec`), with the guard and the threads that Janus has."""
    name = agents.describe(spec).name
    told = {"guard": options.guard, "threads": options.threads}
    return Contestant(name, takes_rho=False, build=lambda _, preset: agents.make_for(preset, name, **told))


def janus(spec: JanusSpec, options: JanusOptions) -> Contestant:
    """A Janus agent; torch is imported when it is first built."""

    def build(rho: Floats | None, preset: Preset) -> Policy:
        if rho is None:
            raise ValueError(f"agent {spec.label!r} takes rho; give one for each game")
        return spec.policy(rho, options, preset.name)

    return Contestant(
        spec.label,
        takes_rho=True,
        build=build,
        shuffled=spec.arm == "shuffled",
        control=spec.arm in CONTROLS,
        arm=spec.arm,
    )


def modelling(spec: ModellingSpec, options: JanusOptions) -> Contestant:
    """Janus with persona adapters as models of its opponent, see `experiments.match.modelling`.

    Raises:
        InputError: the folder holds no adapters that can be used.
    """
    spec.pool()  # whoever names a bad folder hears of it now

    def build(rho: Floats | None, preset: Preset) -> Policy:
        if rho is None:
            raise ValueError(f"agent {spec.label!r} takes rho; give one for each game")
        return spec.policy(rho, options, preset)

    return Contestant(spec.label, takes_rho=True, build=build)


def unasked(contestant: Contestant, rho: float) -> Contestant:
    """A Janus that is asked for no ρ and plays one pass, always at ``rho``: for a base, whose dial is dead anyway."""
    return replace(contestant, takes_rho=False, build=lambda _, preset: contestant.build(np.full((), rho), preset))
