"""A policy learned with Stable-Baselines3, at the table: `LearnedPolicy`.

``model.save(path)`` writes a zip whose ``data`` holds pickled objects beside plain JSON. None of them is unpickled here, and
Stable-Baselines3 need not be installed: what a policy does is a few matrices, read by ``torch.load(weights_only=True)``,
and how many prices it has and whether it reads the mask is told by their shapes. A file from anybody can be played.

Understood are PPO, MaskablePPO, A2C and whatever else has their policy classes, ``MlpPolicy`` and ``MultiInputPolicy``, in
either action mode. Anything that would need code of the file's author (own policy class, own features extractor, pixels)
is refused. What a file cannot tell: observations that were normalised (``VecNormalize``) while learning. Such a policy
would be shown numbers it never saw; normalise rewards only.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bargain_env.actions import ACCEPT, decode_box
from bargain_env.errors import InputError
from bargain_env.observation import SIZE, observe_view
from bargain_env.policy import Bools, Floats, Moves, SeatGames, SeatView

MASKED = {"stable_baselines3.common.policies": False, "sb3_contrib.common.maskable.policies": True}
"""Modules of the policy classes that are understood, and whether their learner masks illegal actions."""
MODES = {"discrete.Discrete": "grid", "box.Box": "box"}
ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0.0),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
}
WEIGHTS = re.compile(r"(mlp_extractor\.(policy|value)_net\.\d+|action_net|value_net)\.(weight|bias)|log_std")
OF_LEARNING = {"optimizer_class", "optimizer_kwargs", "ortho_init", "log_std_init", "share_features_extractor"}
"""Arguments of a policy that change how it learns, not what it does; ``net_arch`` shows in the weights."""


class LearnedPolicy:
    """A `bargain_env.Policy` that plays what Stable-Baselines3 saved.

    It decides as ``model.predict`` does, but in float64, so that a decision does not hang on the size of the batch: the sums
    of a matrix product may change with its shape in their last bits (1e-16), not in float32, to which the result of a
    ``box`` policy is rounded. There the guarantee ends: a mean that lies exactly between two floats, or two actions equal to
    16 digits, may fall either way, and ``predict``, in float32 itself, may differ by 1e-7 of the price range.

    Args:
        path: the file that ``model.save(path)`` wrote; ``.zip`` may be left out.
        deterministic: take the likeliest action (``grid``) or the mean (``box``). False samples, with numbers that are a
            pure function of (seed, game, seat, turn).

    Raises:
        InputError: there is no such file, it is damaged, or it holds what cannot be played safely.
    """

    memoryless = True
    mixed_turns = True

    def __init__(self, path: str | Path, deterministic: bool = True) -> None:
        self.name = "learned"
        self.deterministic = deterministic
        file = _file(Path(path))
        self.network = _load(file, file.stat().st_mtime_ns)
        if not deterministic and self.network.mode == "box" and self.network.spread is None:
            raise InputError(f"policy {str(path)!r} explores by gSDE, which is not sampled here; play it deterministic")

    def reset(self, games: SeatGames) -> None:
        """Nothing to forget."""

    def act(self, view: SeatView) -> Moves:
        """Observe, ask the network, decode."""
        seen, may_accept = observe_view(view).astype(np.float64), ~np.isnan(view.standing)
        return self._act_box(view, seen) if self.network.mode == "box" else self._act_grid(view, seen, may_accept)

    def _act_box(self, view: SeatView, seen: Floats) -> Moves:
        games, value = view.games, self.network(seen)[:, 0]
        if not self.deterministic:
            u = games.uniform(view.turn, 2)
            normal = np.sqrt(-2.0 * np.log1p(-u[:, 0])) * np.cos(2.0 * np.pi * u[:, 1])
            value = value + self.network.spread * normal
        spelled = np.clip(value, -1.0, 1.0).astype(np.float32)
        return Moves(*decode_box(spelled, games.price_low, games.price_high, games.seat, view.standing))

    def _act_grid(self, view: SeatView, seen: Floats, may_accept: Bools) -> Moves:
        n = self.network.n_prices
        legal = np.ones((len(view), 1 + n), dtype=bool)
        legal[:, ACCEPT] = may_accept
        if self.network.reads_mask:
            seen = np.concatenate([legal, seen], axis=1)  # a Dict space is sorted by key: action_mask, observation
        scores = self.network(seen)
        if self.network.masked:
            scores = np.where(legal, scores, -np.inf)
        action = scores.argmax(axis=1) if self.deterministic else _sampled(scores, view)
        offered = np.linspace(view.games.price_low, view.games.price_high, n, axis=1)
        price = np.take_along_axis(offered, np.maximum(action - 1, 0)[:, None], axis=1)[:, 0]
        return Moves(action == ACCEPT, price)


def _sampled(scores: Floats, view: SeatView) -> NDArray[np.intp]:
    """An action of each row, with probabilities softmax(scores)."""
    chances = np.exp(scores - scores.max(axis=1, keepdims=True)).cumsum(axis=1)
    drawn = view.games.uniform(view.turn) * chances[:, -1:]
    return np.minimum((chances <= drawn).sum(axis=1), scores.shape[1] - 1)


@dataclass(frozen=True, slots=True)
class Network:
    """The acting half of an actor-critic policy.

    Attributes:
        layers: weights ``[out, in]`` and biases ``[out]``, the last without activation.
        activation: between layers.
        mode: the action mode that it was trained in.
        masked: whether illegal actions are taken out before it chooses.
        spread: standard deviation of a ``box`` policy; None where it depends on the state.
    """

    layers: tuple[tuple[Floats, Floats], ...]
    activation: Callable[[Floats], Floats]
    mode: str
    masked: bool
    spread: float | None = None

    def __call__(self, seen: Floats) -> Floats:
        """``[b, out]`` of ``[b, in]``."""
        for weight, bias in self.layers[:-1]:
            seen = self.activation(seen @ weight.T + bias)
        weight, bias = self.layers[-1]
        return seen @ weight.T + bias

    @property
    def inputs(self) -> int:
        """How many numbers it reads."""
        return self.layers[0][0].shape[1]

    @property
    def n_prices(self) -> int:
        """Prices that a ``grid`` policy can offer."""
        return len(self.layers[-1][1]) - 1

    @property
    def reads_mask(self) -> bool:
        """Whether the mask is among its inputs."""
        return self.inputs != SIZE


# ── reading the file ──────────────────────────────────────────────────────────────────────────────────────────────────


def _file(path: Path) -> Path:
    for file in (path, Path(f"{path}.zip")):
        if file.is_file():
            return file
    raise InputError(f"no learned policy at {str(path)!r}; give the .zip that model.save(path) wrote")


@lru_cache(maxsize=16)
def _load(file: Path, stamp: int) -> Network:
    """The network in ``file``; ``stamp`` changes when that is written anew."""
    try:
        with zipfile.ZipFile(file) as archive:
            data = json.loads(archive.read("data"))
            weights = archive.read("policy.pth")
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError) as error:
        raise _refusal(file, f"it is no zip of Stable-Baselines3, or damaged ({error})", "save it again") from None
    if not isinstance(data, dict):
        raise _refusal(file, "its 'data' is not an object", "save it again")
    module = _text(data, "policy_class", "__module__")
    if module not in MASKED:
        why = f"its policy class is of {module or 'an unknown module'!r}, not one of PPO, MaskablePPO or A2C"
        raise _refusal(file, why, "train one of these")
    kind = _text(data, "action_space", ":type:")
    mode = next((mode for name, mode in MODES.items() if kind.endswith(f".{name}'>")), None)
    if mode is None:
        raise _refusal(file, f"its actions are {kind or 'unknown'}", "train in action_mode 'grid' or 'box'")
    return _network(file, _tensors(file, weights), _activation(file, data), mode, MASKED[module])


def _refusal(file: Path, why: str, instead: str) -> InputError:
    return InputError(f"learned policy {str(file)!r} cannot be played: {' '.join(why.split())}; {instead}")


def _text(data: dict[str, Any], key: str, inner: str) -> str:
    """What the plain part of a pickled entry says of itself; never the pickle."""
    entry = data.get(key)
    return str(entry.get(inner, "")) if isinstance(entry, dict) else ""


def _activation(file: Path, data: dict[str, Any]) -> Callable[[Floats], Floats]:
    """The activation that ``policy_kwargs`` names; the only one of them that acts and does not show in the weights."""
    kwargs = data.get("policy_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise _refusal(file, "its policy_kwargs are not an object", "save it again")
    foreign = sorted(set(kwargs) - OF_LEARNING - {"net_arch", "activation_fn", ":type:", ":serialized:"})
    if foreign:
        why = f"policy_kwargs {', '.join(foreign)} need its author's code"
        raise _refusal(file, why, "train with net_arch and activation_fn alone")
    named = re.fullmatch(r"<class 'torch\.nn\.modules\.activation\.(\w+)'>", str(kwargs.get("activation_fn", "")))
    name = named[1] if named else str(kwargs.get("activation_fn", "Tanh"))
    if name not in ACTIVATIONS:
        raise _refusal(file, f"its activation_fn is {name}", f"train with one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _tensors(file: Path, weights: bytes) -> dict[str, Floats]:
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # of formats that it then refuses
            state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
        return {name: tensor.detach().double().numpy() for name, tensor in state.items()}
    except (RuntimeError, UnpicklingError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).strip().split("\n")[0][:120]
        raise _refusal(file, f"its policy.pth holds no plain weights ({reason})", "save it again") from None


def _network(
    file: Path, state: dict[str, Floats], activation: Callable[[Floats], Floats], mode: str, masked: bool
) -> Network:
    foreign = sorted(name for name in state if not WEIGHTS.fullmatch(name))
    if foreign:
        raise _refusal(file, f"it has weights beyond a plain network ({foreign[0]})", "train an MlpPolicy")
    indices = sorted({int(name.split(".")[2]) for name in state if name.startswith("mlp_extractor.policy_net.")})
    names = [f"mlp_extractor.policy_net.{i}" for i in indices] + ["action_net"]
    try:
        layers = tuple((state[f"{name}.weight"], state[f"{name}.bias"]) for name in names)
    except KeyError as error:
        raise _refusal(file, f"its weight {error} is missing", "save it again") from None
    log_std = state.get("log_std")
    outputs = layers[-1][1].size
    inputs = (SIZE,) if mode == "box" else (SIZE, SIZE + outputs)
    sizes = [layers[0][0].shape[-1] if layers[0][0].ndim == 2 else 0, *(bias.size for _, bias in layers)]
    if not all(
        weight.shape == (out, into) and bias.shape == (out,)
        for (weight, bias), into, out in zip(layers, sizes[:-1], sizes[1:], strict=True)
    ):
        raise _refusal(file, "the shapes of its weights do not fit together", "save it again")
    if not all(np.isfinite(array).all() for array in state.values()):
        raise _refusal(file, "it has weights that are not finite", "train it anew, with a smaller learning rate")
    if sizes[0] not in inputs:
        why = f"it reads {sizes[0]} numbers, where this game shows {' or '.join(map(str, inputs))}"
        raise _refusal(file, why, "train it on bargain_env.single.BargainEnv, without frame stacking")
    if (mode == "box") != (log_std is not None) or (outputs != 1 if mode == "box" else outputs < 3):
        raise _refusal(file, f"its {outputs} outputs are not the actions of {mode!r}", "train it on BargainEnv")
    spread = float(np.exp(log_std[0])) if log_std is not None and log_std.shape == (1,) else None
    return Network(layers, activation, mode, masked, spread)
