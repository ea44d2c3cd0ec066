"""The state of AdamW as plain tensors, so that a checkpoint can continue a run bit for bit without a pickle."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bargain_env.errors import InputError

OPTIMIZER = "optimizer.safetensors"


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of the optimizer's state, named by the parameter's position and its role."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value.detach().cpu().clone() for i, entry in state.items() for name, value in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Put the state saved in ``folder`` into a fresh optimizer over the same parameters.

    Raises:
        InputError: no optimizer state there, it is damaged, or it belongs to other parameters.
    """
    path = folder / OPTIMIZER
    if not path.is_file():
        raise InputError(f"{folder} holds no {OPTIMIZER}; resume from a step checkpoint, not from a final adapter")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); resume from an earlier checkpoint") from error
    packed = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    shapes = [tuple(p.shape) for p in parameters]
    if sorted(state) != list(range(len(parameters))) or any(
        tuple(entry["exp_avg"].shape) != shapes[i] for i, entry in state.items()
    ):
        raise InputError(f"{path} belongs to other parameters than this adapter's; check --rank and --model-name")
    optimizer.load_state_dict({"state": state, "param_groups": packed["param_groups"]})
