"""The catalogue of adapters: a directory of folders, PEFT's and ours, and what was registered by hand."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from bargain_env.errors import InputError, unknown

from .index import Found, scan
from .spec import AT, AdapterSpec, split_name


class AdapterRegistry:
    """Finds adapters and says what is known of them; holds no weights.

    A folder in ``adapter_dir`` with an ``adapter_config.json`` is an adapter of that name: a PEFT LoRA, or a ρ-adapter,
    which is served at a ρ under the name ``NAME@RHO``. What it is for stands in its ``adapter_meta.json`` (or in the
    config): ``domain`` (the folder's name by default), ``description``, ``keywords``, and the base's digests. A folder that
    cannot be used is left out and reported in `problems`. Safe to share between threads.

    Args:
        adapter_dir: made if it does not exist.
        max_loaded: adapters that a manager may hold at once.

    Raises:
        InputError: ``adapter_dir`` is a file, or ``max_loaded`` below 1.
    """

    def __init__(self, adapter_dir: Path | str = "./lora_adapters", max_loaded: int = 3) -> None:
        if max_loaded < 1:
            raise InputError(f"max_loaded {max_loaded} must be at least 1: no adapter could be loaded")
        self._directory, self._max_loaded = Path(adapter_dir).absolute(), max_loaded
        if self._directory.exists() and not self._directory.is_dir():
            raise InputError(f"{self._directory} is a file; give the directory that holds the adapters' folders")
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._found: Mapping[str, Found] = {}
        self._registered: dict[str, AdapterSpec] = {}
        self._loaded: Counter[str] = Counter()
        self.rescan()

    def rescan(self) -> None:
        """Look at the directory again; a folder whose files have the same sizes and times is not read."""
        found = scan(self._directory)
        with self._lock:
            self._found = MappingProxyType(found)

    @property
    def adapter_dir(self) -> Path:
        """The directory, absolute."""
        return self._directory

    @property
    def max_loaded(self) -> int:
        """Adapters that a manager may hold at once."""
        return self._max_loaded

    @property
    def problems(self) -> dict[str, str]:
        """Folders that are no usable adapters, and why."""
        return {name: found.problem for name, found in self._found.items() if found.spec is None}

    @property
    def loaded_adapters(self) -> list[str]:
        """Names that managers hold now, sorted."""
        with self._lock:
            return sorted(self._loaded)

    def get_adapter(self, name: str) -> AdapterSpec | None:
        """The adapter called ``name``, ``NAME@RHO`` for a ρ-adapter at one ρ; None where there is none.

        Raises:
            InputError: what follows an @ is no ρ, or the adapter does not depend on ρ.
        """
        plain, rho = split_name(name)
        with self._lock:
            found = self._found.get(plain)
            spec = self._registered.get(plain) or (found.spec if found else None)
            if spec is None:
                return None
            spec = spec if rho is None else spec.at(rho)
            return replace(spec, loaded=spec.name in self._loaded)

    def require(self, name: str) -> AdapterSpec:
        """As `get_adapter`, for one that has to be there.

        Raises:
            InputError: there is none; says why, or what there is.
        """
        spec = self.get_adapter(name)
        if spec is not None:
            return spec
        problem = self.problems.get(split_name(name)[0])
        if problem:
            raise InputError(f"adapter {name!r} cannot be used: {problem}")
        names = [known.name for known in self.list_adapters()]
        if not names:
            raise InputError(f"adapter {name!r} is unknown: {self._directory} holds no adapter; save one there")
        raise unknown("adapter", name, names)

    def get_adapters_for_domain(self, domain: str) -> list[AdapterSpec]:
        """All of one domain, by name."""
        return [spec for spec in self.list_adapters() if spec.domain == domain]

    def list_adapters(self) -> list[AdapterSpec]:
        """All that can be used, by name; a ρ-adapter is listed once, without a ρ."""
        with self._lock:
            specs = {name: found.spec for name, found in self._found.items() if found.spec is not None}
            specs |= self._registered
            return [replace(specs[name], loaded=name in self._loaded) for name in sorted(specs)]

    @staticmethod
    def refuse_name(name: str) -> None:
        """Raise `InputError` where nothing can be registered as ``name``: it is empty, or has an @ in it."""
        if not name or AT in name:
            raise InputError(f"adapter name {name!r} is empty or holds {AT!r}, which stands before a rho; rename it")

    def register_adapter(self, spec: AdapterSpec) -> None:
        """Add an adapter that lies elsewhere or was fused, in the place of one of the same name.

        Raises:
            InputError: its name is empty, or has an @ in it.
        """
        self.refuse_name(spec.name)
        with self._lock:
            self._registered[spec.name] = replace(spec, loaded=False)

    def note_loaded(self, name: str, loaded: bool) -> None:
        """A manager says that it holds ``name``, or no longer."""
        with self._lock:
            self._loaded[name] += 1 if loaded else -1
            if self._loaded[name] < 1:
                del self._loaded[name]
