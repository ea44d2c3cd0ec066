"""Januses as specs: which adapter plays, and which of the two ways to it ρ may take.

ρ reaches the model as text in its prompt and as gates of its update. An *arm* of the ablation keeps one of them, or none,
and holds the rest fixed; `ARMS` says what. All arms play with the same decoding, guard and batches.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import agents
from bargain_env import Policy
from bargain_env.errors import InputError

Floats = NDArray[np.float64]

SHIPPED = "janus-nano"
CONFIG = "adapter_config.json"
LORA = Path("runs/ablations/lora/final")
"""The plain LoRA that ``lora`` plays: where `experiments.ablations` puts it unless told otherwise."""

ARMS: Mapping[str, str] = {
    "both": "rho in the prompt and in the gates, as trained",
    "text": "rho in the prompt; weights as trained, gates frozen at their mean over rho from 0 to 1",
    "gates": "rho in the gates; weights as trained, every prompt says 0.5",
    "lora": "rho in the prompt; trained anew with all gates 1 (a plain LoRA): same base, data, rank, layers, steps and seed",
    "gates_trained": "rho in the gates; trained anew with 0.5 in every prompt: the rest as for lora",
    "base": "no adapter; the prompt still says rho, on which the base was not trained",
    "shuffled": "as both, but the requests are permuted within each opponent and scenario",
}
"""Arms of the ablation, and what each of them holds fixed."""
CHANNELS = ("text", "gates")
"""Arms that are written behind an ``@``."""
CONTROLS = ("base", "shuffled")
"""Arms whose dial is dead by construction; drawn as controls beside the agents under test."""
KINDS = ("janus", "base", "shuffled", "lora")
FORMS = (
    f"{SHIPPED} janus:PATH {SHIPPED}@text {SHIPPED}@gates janus:PATH@text janus:PATH@gates lora lora:PATH base base:PATH "
    "shuffled shuffled:PATH"
).split()


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
        raw_dial: set every dial to what is asked for, whatever map its adapter has.
    """

    decode: str = "median"
    guard: str = "monotone"
    batch_size: int = 256
    threads: int = 2
    base: str | None = None
    allow_base_mismatch: bool = False
    precision: str = "trained"
    raw_dial: bool = False

    def loading(self, given_by_path: bool) -> dict[str, Any]:
        """How an adapter is to be loaded, as far as that was chosen; the shipped one stays on its own base."""
        chosen: dict[str, Any] = {} if self.precision == "trained" else {"precision": self.precision}
        if given_by_path and self.base is not None:
            # An adapter's config counts a relative path from its own folder, a command line from where it is run.
            chosen["base"] = str(Path(self.base).resolve()) if Path(self.base).exists() else self.base
        if given_by_path and self.allow_base_mismatch:
            chosen["allow_base_mismatch"] = True
        return chosen


@dataclass(frozen=True, slots=True)
class JanusSpec:
    """A Janus, not yet loaded.

    Attributes:
        label: as it was named.
        adapter: ``janus-nano`` or a folder.
        arm: of `ARMS`.
        given: whether the adapter was given by its path.
    """

    label: str
    adapter: str
    arm: str
    given: bool

    def policy(self, rho: Floats, options: JanusOptions, scenario: str) -> Policy:
        """The player at ``rho``, one or ``[B]``, in games of the preset ``scenario``; torch is imported here.

        Raises:
            InputError: the adapter cannot be loaded, or is no plain LoRA where one was asked for.
        """
        import torch

        torch.set_num_threads(options.threads)
        chosen = options.loading(self.given)
        if self.arm == "base":
            chosen["base_only"] = True
        if self.arm in CHANNELS:
            chosen["channel"] = self.arm
        if options.raw_dial:
            chosen["raw_dial"] = True
        made = agents.JanusAgent(
            self.adapter, rho, decode=options.decode, guard=options.guard, batch_size=options.batch_size,
            scenario=scenario, **chosen,
        )  # fmt: skip
        if self.arm == "lora":
            _require_plain(self, made)
        policy: Policy = made
        return policy


def janus_spec(text: str) -> JanusSpec | None:
    """The Janus that ``text`` names; None if it names something else.

    Raises:
        InputError: it names one that is not there, or an ``@`` where none can be.
    """
    name, mark, channel = text.rpartition("@")
    if not mark or channel not in CHANNELS:
        name, channel = text, ""
    kind, colon, path = name.partition(":")
    if name == SHIPPED:
        return JanusSpec(text, SHIPPED, channel or "both", given=False)
    if kind not in KINDS or name == "janus":
        return None
    if channel and kind != "janus":
        raise InputError(f"agent {text!r}: @{channel} stands behind {SHIPPED} or janus:PATH; leave it out")
    if colon and not (path and Path(path).is_dir()):
        raise InputError(f"agent {text!r}: no checkpoint at {path!r}; give {kind}:PATH of a trained adapter folder")
    if kind == "lora" and not colon:
        return JanusSpec(text, _default_lora(), kind, given=True)
    arm = channel or (_trained_as(path) if kind == "janus" else kind)
    return JanusSpec(text, path or SHIPPED, arm, given=bool(colon))


def _trained_as(folder: str) -> str:
    """The arm that the adapter in ``folder`` was trained for, as far as its config says; torch is not needed for it."""
    for path in (Path(folder, "adapter", CONFIG), Path(folder, CONFIG)):
        if path.is_file():
            with contextlib.suppress(ValueError, AttributeError):  # what is broken is refused when it is loaded
                run = json.loads(path.read_text()).get("run", {})
                if run.get("gates") == "constant":
                    return "lora"
                if run.get("text_rho") is not None:
                    return "gates_trained"
    return "both"


def _default_lora() -> str:
    if not LORA.is_dir():
        raise InputError(
            f"agent 'lora': no plain LoRA at {str(LORA)!r}; train it with `python -m experiments.ablations`, or give "
            "lora:PATH"
        )
    return str(LORA)


def _require_plain(spec: JanusSpec, agent: Any) -> None:
    from hyperlora.constant_gates import has_constant_gates

    if not has_constant_gates(agent.adapter.model):
        raise InputError(
            f"agent {spec.label!r}: the gates of {spec.adapter} follow rho, so it is no plain LoRA; play it as "
            f"janus:{spec.adapter}, or train one with `python -m experiments.ablations`"
        )
