"""Where adapters go: into a model of this process, row by row, or to a server that loads them by name."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from bargain_env.errors import InputError

from ..identity import identify
from ..inject import TARGET_MODULES
from .errors import ServerError
from .rows import bind_adapters, inject_rows, row_layers, stack_adapters
from .spec import AdapterSpec
from .weights import AdapterWeights, Pair, check_base, checked, fuse_weights, read_weights


class Backend(Protocol):
    """What a manager needs of the place where adapters are used.

    Attributes:
        scales_at_load: a scaling takes effect when an adapter is read, not when it is bound.
    """

    scales_at_load: bool

    def read(self, spec: AdapterSpec, scaling: float) -> AdapterWeights:
        """Get an adapter ready, or raise and change nothing."""
        ...

    def drop(self, name: str) -> None:
        """An adapter is no longer held."""
        ...

    def bind(self, adapters: Sequence[tuple[AdapterWeights, float]], rows: Sequence[int] | None) -> Any:
        """A context in which the model runs under these adapters at these scalings: one a row, or all for every row."""
        ...

    def adopt(self, spec: AdapterSpec, layers: Mapping[str, Pair]) -> AdapterWeights:
        """Get an adapter ready that was made in memory, or raise and change nothing."""
        ...


class ModelBackend:
    """A model of this process whose linear layers take adapters per row; its own weights are never written.

    Args:
        model: a causal LM; `inject_rows` is called on it where nobody has.
        target_modules: suffixes of the layers that can be adapted; those of Qwen2 and Llama by default.

    Raises:
        InputError: as `inject_rows`.
    """

    scales_at_load = False

    def __init__(self, model: nn.Module, target_modules: Sequence[str] = TARGET_MODULES) -> None:
        if not hasattr(model, "base_digest"):
            identify(model)
        if not hasattr(model, "row_binding"):
            inject_rows(model, target_modules)
        self.model, self.layers = model, row_layers(model)

    def read(self, spec: AdapterSpec, scaling: float) -> AdapterWeights:
        """See `read_weights`; the scaling is applied when it is bound."""
        return read_weights(spec, self.model, self.layers)

    def drop(self, name: str) -> None:
        """Nothing to do: its tensors go with the last pass that uses them."""

    def adopt(self, spec: AdapterSpec, layers: Mapping[str, Pair]) -> AdapterWeights:
        """Check and copy tensors that were made in memory."""
        check_base(spec, self.model)
        return checked(spec, layers, self.layers)

    def bind(
        self, adapters: Sequence[tuple[AdapterWeights, float]], rows: Sequence[int] | None
    ) -> contextlib.AbstractContextManager[None]:
        """Bind them for this thread or task; see `bind_adapters`."""
        if not adapters:
            return bind_adapters(self.model, {}, -1)
        if rows is None:
            if len(adapters) == 1:
                return bind_adapters(self.model, dict(adapters[0][0].layers), 0, adapters[0][1])
            return bind_adapters(self.model, dict(fuse_weights(adapters, "").layers), 0)
        stacked = stack_adapters([weights.layers for weights, _ in adapters])
        return bind_adapters(self.model, stacked, rows, [scaling for _, scaling in adapters])


class ServerBackend:
    """A server with the two calls of the seed report: it holds the model and the adapters, and applies what it has loaded.

    Its adapters take the bytes that they take on disk, as far as is known here. Binding per row is the server's affair.

    Args:
        server: has ``load_lora_adapter(adapter_path=, adapter_name=, scaling=)`` and ``unload_lora_adapter(name)``.
    """

    scales_at_load = True

    def __init__(self, server: Any) -> None:
        self._server = server

    def read(self, spec: AdapterSpec, scaling: float) -> AdapterWeights:
        """Have it loaded; raises `ServerError` where the server does not."""
        if not spec.path or spec.rho is not None or spec.kind == "hyperlora":
            raise InputError(
                f"a server loads plain LoRA folders, and {spec.name!r} is none; write one with hyperlora.export or save it"
            )
        try:
            self._server.load_lora_adapter(adapter_path=spec.path, adapter_name=spec.name, scaling=scaling)
        except Exception as error:  # whatever a server raises, the others go on
            raise ServerError(f"the server could not load {spec.name!r}: {error}") from error
        return ServedWeights({}, spec.digest, spec.size_bytes)

    def drop(self, name: str) -> None:
        """Have it unloaded; raises `ServerError` where the server does not."""
        try:
            self._server.unload_lora_adapter(name)
        except Exception as error:
            raise ServerError(f"the server could not unload {name!r}: {error}") from error

    def adopt(self, spec: AdapterSpec, layers: Mapping[str, Pair]) -> AdapterWeights:
        """Not possible."""
        raise InputError(f"a server loads adapters from folders; save {spec.name!r} as one first")

    def bind(self, adapters: Sequence[tuple[AdapterWeights, float]], rows: Sequence[int] | None) -> Any:
        """All that is loaded is applied by the server; rows are not."""
        if rows is not None:
            raise InputError("this backend is a server, which takes no adapters per row; give the manager a model")
        return contextlib.nullcontext()


@dataclass(frozen=True, slots=True, eq=False)
class ServedWeights(AdapterWeights):
    """An adapter that a server holds.

    Attributes:
        size_bytes: of its file, which is all that is known here.
    """

    size_bytes: int = 0

    def by_device(self) -> dict[str, int]:
        """Bytes of its file, under ``server``."""
        return {"server": self.size_bytes}


def backend_of(place: Any, target_modules: Sequence[str]) -> Backend:
    """The backend for a model, for a server, or for what is a backend already.

    Raises:
        InputError: none of these.
    """
    if isinstance(place, nn.Module):
        return ModelBackend(place, target_modules)
    if callable(getattr(place, "load_lora_adapter", None)):
        return ServerBackend(place)
    if callable(getattr(place, "read", None)) and callable(getattr(place, "bind", None)):
        return place
    raise InputError(
        f"a manager needs a model, or a server with load_lora_adapter and unload_lora_adapter; got {type(place).__name__}"
    )
