"""Who plays: agent specs (``janus-nano,script:linear_standard``) and opponent specs (``all,family:micro``) resolved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import agents
import agents.text
from bargain_env import Policy, Preset
from bargain_env.errors import InputError, unknown

Floats = NDArray[np.float64]
SHIPPED = "janus-nano"
SCRIPT = "script:"
"""What the label of a scripted agent begins with."""
CONTROLS: dict[str, dict[str, Any]] = {
    "janus": {},
    "base": {"control": True, "base_only": True},
    "shuffled": {"control": True, "shuffled": True},
}
"""Kinds of Janus agents; the controls play the shipped model, or that of the PATH they are given."""


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
    """

    label: str
    takes_rho: bool
    build: Callable[[Floats | None, Preset], Policy]
    shuffled: bool = False
    control: bool = False
    scripted: bool = False


@dataclass(frozen=True, slots=True)
class JanusOptions:
    """How Janus agents play; see `agents.JanusAgent`.

    Attributes:
        decode: a mode of `hyperlora.decode.Scorer`.
        guard: one of `agents.guards.GUARDS`.
        batch_size: rows of one forward pass.
        threads: torch threads.
        base: what adapters given by PATH are loaded on, if not on the base that their config names.
        allow_base_mismatch: load them on a base that they were not trained on.
        precision: of every base; see `hyperlora.load_hyperlora_adapter`.
    """

    decode: str = "mean"
    guard: str = "ir"
    batch_size: int = 256
    threads: int = 2
    base: str | None = None
    allow_base_mismatch: bool = False
    precision: str = "trained"

    def loading(self, given_by_path: bool) -> dict[str, Any]:
        """How an adapter is to be loaded, as far as that was chosen; the shipped one stays on its own base."""
        chosen: dict[str, Any] = {} if self.precision == "trained" else {"precision": self.precision}
        if given_by_path and self.base is not None:
            # An adapter's config counts a relative path from its own folder, a command line from where it is run.
            chosen["base"] = str(Path(self.base).resolve()) if Path(self.base).exists() else self.base
        if given_by_path and self.allow_base_mismatch:
            chosen["allow_base_mismatch"] = True
        return chosen


def resolve_agents(text: str, options: JanusOptions | None = None) -> list[Contestant]:
    """The contestants of a comma list of specs, in order, without repeats.

    Raises:
        InputError: unknown spec or strategy, a checkpoint that is not there, or a base for adapters that nobody plays.
    """
    options, specs = options or JanusOptions(), _split(text, "--agents")
    found: dict[str, Contestant] = {}
    for spec in specs:
        for contestant in _resolve(spec, options):
            found.setdefault(contestant.label, contestant)
    if (options.base or options.allow_base_mismatch) and not any(_by_path(spec) for spec in specs):
        forms = ", ".join(f"{kind}:PATH" for kind in CONTROLS)
        raise InputError(f"--base and --allow-base-mismatch are for {forms}; name one of these in --agents")
    return list(found.values())


def _by_path(spec: str) -> bool:
    kind, _, path = spec.partition(":")
    return kind in CONTROLS and bool(path)


def _resolve(spec: str, options: JanusOptions) -> list[Contestant]:
    kind, _, rest = spec.partition(":")
    if spec == "scripts":
        return [script(name) for name in agents.list_strategies(evaluable=True)]
    if kind == "script":
        return [script(agents.describe(rest).name)]
    if spec == SHIPPED:
        return [janus(spec, SHIPPED, options)]
    if kind == "learned":
        return [learned(spec)]
    if kind == "text":
        return [text_model(spec, options)]
    if kind in CONTROLS:
        if spec != kind and not Path(rest).is_dir():
            raise InputError(f"agent {spec!r}: no checkpoint at {rest!r}; give {kind}:PATH of a trained adapter folder")
        if spec != "janus":
            return [janus(spec, rest or SHIPPED, options, **CONTROLS[kind])]
    forms = f"{SHIPPED} janus:PATH base base:PATH shuffled shuffled:PATH learned:PATH scripts script:NAME".split()
    forms += ["text:MODEL_DIR", "text:http://HOST:PORT/v1#MODEL"]
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


def text_model(spec: str, options: JanusOptions) -> Contestant:
    """A chat model by prompt, ``text:…`` (see `agents.text.spec`), with the guard and the threads that Janus has."""
    name = agents.describe(spec).name
    told = {"guard": options.guard, "threads": options.threads}
    return Contestant(name, takes_rho=False, build=lambda _, preset: agents.make_for(preset, name, **told))


def janus(
    label: str, adapter: str, options: JanusOptions, *, control: bool = False, shuffled: bool = False, **extra: Any
) -> Contestant:
    """A Janus agent; torch is imported when it is first built."""
    chosen = {**options.loading(given_by_path=adapter != SHIPPED), **extra}

    def build(rho: Floats | None, preset: Preset) -> Policy:
        import torch

        if rho is None:
            raise ValueError(f"agent {label!r} takes rho; give one for each game")
        torch.set_num_threads(options.threads)
        policy: Policy = agents.JanusAgent(
            adapter, rho, decode=options.decode, guard=options.guard, batch_size=options.batch_size, **chosen
        )
        return policy

    return Contestant(label, takes_rho=True, build=build, shuffled=shuffled, control=control)


def resolve_opponents(text: str) -> list[str]:
    """Strategy names of a comma list of names and groups, in order, without repeats.

    Groups are ``all`` or ``scripts`` (every evaluable strategy), ``train`` and ``held_out`` (those of a split) and
    ``family:F``; a name may be ``learned:PATH`` or ``text:…``.

    Raises:
        InputError: unknown name or family, or an empty group.
    """
    names = [name for spec in _split(text, "--opponents") for name in _opponents(spec)]
    return list(dict.fromkeys(names))


def _opponents(spec: str) -> list[str]:
    kind, _, family = spec.partition(":")
    if kind == "script":  # the spelling of --agents is understood here too
        return [agents.describe(family).name]
    if kind == "family":
        families = {agents.describe(name).family for name in agents.list_strategies()}
        if family not in families:
            raise unknown("family", family, families)
        found = agents.list_strategies(family=family, evaluable=True)
    elif spec in ("all", "scripts"):
        found = agents.list_strategies(evaluable=True)
    elif spec in ("train", "held_out"):
        found = agents.list_strategies(split=spec, evaluable=True)
    else:
        return [agents.describe(spec).name]
    if not found:
        raise InputError(f"--opponents {spec!r} names no evaluable strategy; choose another group or name strategies")
    return found


def _split(text: str, option: str) -> list[str]:
    specs = [part.strip() for part in text.split(",") if part.strip()]
    if not specs:
        raise InputError(f"{option} is empty; name at least one")
    return specs
