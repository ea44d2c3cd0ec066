"""The processes of one training run, as `accelerate launch` or `torchrun` starts them; or just this one.

Every process holds the whole adapter and takes its share of each step's micro-batches; gradients are summed once a step.
So the result does not depend on the number of processes but for the order in which floats are added. The frozen base is
whole in every process too, or sharded over them (FSDP2): that is where the memory goes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bargain_env.errors import InputError

from .inject import adapter_parameters


@dataclass(frozen=True, slots=True)
class Workers:
    """A process among those of its run.

    Attributes:
        index: of the process, from 0.
        count: how many there are.
        device: where it computes.
        plugin: accelerate's FSDP settings where the base is to be sharded.
    """

    index: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    plugin: Any = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.index == 0

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message for each type of number."""
        if self.count == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault(tensor.dtype, []).append(tensor)
        for same in kinds.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            torch.distributed.all_reduce(flat)
            for tensor, part in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def add_up_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Sum the gradients over all processes; one that a process has not got counts as 0."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add_up(parameter.grad for parameter in parameters)  # type: ignore[misc]

    def wait(self) -> None:
        """Until every process has come here."""
        if self.count > 1:
            torch.distributed.barrier()


def join(device: str = "auto") -> Workers:
    """Take part in the run that the launcher started, or be alone.

    Args:
        device: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.

    Raises:
        InputError: an unknown device, or a launcher's setting that is not supported here.
    """
    if device not in ("auto", "cpu", "cuda") and not device.startswith("cuda:"):
        raise InputError(f"unknown device {device!r}; choose cpu, cuda or auto")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {device!r} is not there; choose cpu or auto")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        return Workers(device=torch.device(chosen))
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    return Workers(state.process_index, state.num_processes, state.device, _fsdp())


def _fsdp() -> Any:
    """The launcher's FSDP settings, None where it did not ask for FSDP."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() not in ("true", "1"):
        return None
    from accelerate import FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise InputError("this is FSDP2 only; launch with --fsdp_version 2")
    return plugin


def shard_base(model: Any, workers: Workers) -> None:
    """Where the launcher asked for it, share the frozen base out over the processes, block by block; no adapter with it.

    Raises:
        InputError: the base is in 4 bits.
    """
    if workers.plugin is None:
        return
    if getattr(model, "base_precision", "") == "nf4":
        raise InputError("a 4-bit base cannot be sharded; launch without FSDP, which copies it to every process")
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    plugin = workers.plugin
    options: dict[str, Any] = {
        "ignored_params": set(adapter_parameters(model).values()),
        "reshard_after_forward": bool(plugin.reshard_after_forward),
        "mp_policy": plugin.mixed_precision_policy or MixedPrecisionPolicy(),
    }
    if plugin.cpu_offload:
        options["offload_policy"] = plugin.cpu_offload
    blocks = set(model._no_split_modules or ())
    for module in list(model.modules()):
        if type(module).__name__ in blocks:
            fully_shard(module, **options)
    fully_shard(model, **options)
