"""What a training run must remember beside its weights, as plain tensors: it continues bit for bit without a pickle.

Everything else that happens at step n is a pure function of (settings, data, n), so nothing else is saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bargain_env.errors import InputError

OPTIMIZER = "optimizer.safetensors"
_SCALER = ("scale", "_growth_tracker")


@dataclass(slots=True)
class TrainState:
    """AdamW and, for half precision, the scale of the loss.

    Attributes:
        optimizer: over the parameters that train.
        scaler: disabled unless the precision is fp16.
    """

    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler

    def tensors(self) -> dict[str, Tensor]:
        """Everything, named by the parameter's position and its role."""
        state = self.optimizer.state_dict()["state"]
        found = {f"{i}.{name}": v.detach().cpu().clone() for i, entry in state.items() for name, v in entry.items()}
        if self.scaler.is_enabled():
            held = self.scaler.state_dict()
            found |= {f"scaler.{name}": torch.tensor(float(held[name]), dtype=torch.float64) for name in _SCALER}
        return found

    def load(self, folder: Path) -> None:
        """Take up the state saved in ``folder``.

        Raises:
            InputError: no such state there, it is damaged, or it belongs to other parameters or another precision.
        """
        path = folder / OPTIMIZER
        tensors = _read(path)
        scale = {name: tensors.pop(f"scaler.{name}", None) for name in _SCALER}
        if (scale["scale"] is not None) != self.scaler.is_enabled():
            raise InputError(f"{path} belongs to a run in another precision; repeat its --precision")
        packed = self.optimizer.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = tensor
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        shapes = [tuple(p.shape) for p in parameters]
        if sorted(state) != list(range(len(parameters))) or any(
            tuple(entry["exp_avg"].shape) != shapes[i] for i, entry in state.items()
        ):
            raise InputError(f"{path} belongs to other parameters than this adapter's; check --rank and --model-name")
        self.optimizer.load_state_dict({"state": state, "param_groups": packed["param_groups"]})
        if self.scaler.is_enabled():
            values = {name: float(value) for name, value in scale.items() if value is not None}
            held = {**self.scaler.state_dict(), "scale": values["scale"]}
            self.scaler.load_state_dict({**held, "_growth_tracker": int(values["_growth_tracker"])})


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path.parent} holds no {path.name}; resume from a step checkpoint, not from a final adapter")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); resume from an earlier checkpoint") from error
