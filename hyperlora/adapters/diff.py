"""What differs between two versions: what their manifests say, their files, and their weights tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from .manifest import Version

SECTIONS = ("adapter_name", "kind", "base", "data", "hyperparameters", "code", "packages")


@dataclass(frozen=True, slots=True)
class TensorChange:
    """A tensor of both versions, of one shape.

    Attributes:
        file: below the versions' folders.
        name: of the tensor.
        relative: ‖b − a‖ / ‖a‖ (Frobenius); None where a is 0 and b is not.
    """

    file: str
    name: str
    relative: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """From version a to version b.

    Attributes:
        said: value in a and in b of whatever their manifests say differently, by its path; None where one says nothing.
        files: ``added``, ``removed`` or ``changed``, by file.
        tensors: of weights files that changed, those of one shape in both, largest change first.
        unlike: tensors that are in one version alone, or of another shape.
    """

    said: dict[str, tuple[Any, Any]]
    files: dict[str, str]
    tensors: list[TensorChange]
    unlike: list[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def diff(a: Version, b: Version) -> Difference:
    """Compare two versions, of one agent or of two."""
    mine, theirs = (dict(_flat({key: v.manifest.get(key) for key in SECTIONS})) for v in (a, b))
    said = {key: (mine.get(key), theirs.get(key)) for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)}
    files = _files(a.manifest["files"], b.manifest["files"])
    changed = [name for name, what in files.items() if what == "changed" and name.endswith(".safetensors")]
    tensors, unlike = list[TensorChange](), list[str]()
    for name in changed:
        found, other = _tensors(a.path / name, b.path / name, name)
        tensors += found
        unlike += other
    tensors.sort(key=lambda change: (-(change.relative if change.relative is not None else float("inf")), change.name))
    return Difference(said, files, tensors, unlike)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def _files(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in sorted({*a, *b}):
        if name not in a:
            found[name] = "added"
        elif name not in b:
            found[name] = "removed"
        elif a[name]["sha256"] != b[name]["sha256"]:
            found[name] = "changed"
    return found


def _tensors(a: Path, b: Path, file: str) -> tuple[list[TensorChange], list[str]]:
    with safe_open(a, framework="pt") as left, safe_open(b, framework="pt") as right:
        mine, theirs = set(left.keys()), set(right.keys())
        changes, unlike = [], [f"{file}: {name} is in one version alone" for name in sorted(mine ^ theirs)]
        for name in sorted(mine & theirs):
            x, y = left.get_tensor(name), right.get_tensor(name)
            if x.shape != y.shape:
                unlike.append(f"{file}: {name} is {list(x.shape)} and {list(y.shape)}")
            else:
                changes.append(TensorChange(file, name, _relative(x, y)))
    return changes, unlike


def _relative(a: Tensor, b: Tensor) -> float | None:
    size, change = float(a.double().norm()), float((b.double() - a.double()).norm())
    return change / size if size else None if change else 0.0
