"""``training_summary.json``: what a training run was given, what it took and where it got, on one page for programs.

Everything but `VARYING` is a function of the inputs, so two runs of the same settings, data and base give the same
summary except for those fields. A command fills a `TrainingSummary` and hands it to `write_summary` when the run ends,
early or not.
"""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bargain_env.errors import InputError
from bargain_env.files import replacing

SCHEMA_VERSION = 1
SUMMARY = "training_summary.json"
VARYING = ("wall_time_s", "peak_memory", "libraries")
"""Fields that depend on the machine."""
LIBRARIES = (
    "bargain-lab", "torch", "transformers", "tokenizers", "safetensors", "numpy", "accelerate", "peft", "bitsandbytes",
    "tensorboard",
)  # fmt: skip


def library_versions() -> dict[str, str]:
    """Of Python and of those `LIBRARIES` that are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Milestone:
    """An evaluation that is worth quoting.

    Attributes:
        step: optimizer steps done when it was made.
        n: rows it is over.
        metrics: what the evaluation returned; may nest.
    """

    step: int
    n: int
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Resumption:
    """One link of a run's history.

    Attributes:
        from_checkpoint: folder that was resumed from, as it was named.
        at_step: optimizer steps done in it.
    """

    from_checkpoint: str
    at_step: int


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Largest memory of this process since it started, in bytes; of other processes of a launch nothing is known.

    Attributes:
        rss: resident set; None where the system does not tell.
        cuda: allocated on the current CUDA device; None without one.
    """

    rss: int | None
    cuda: int | None


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """A finished run.

    Attributes:
        settings: the command's, by name.
        data_sha256: digest of the steps table.
        base: the frozen model: its spec, digest and precision.
        adapter: the adapter's shape (rank, alpha, …) and the digest of its final weights.
        steps: optimizer steps done, those before a resumption included.
        rows_seen: rows trained on, repeats counted, those before a resumption included.
        target_tokens: labelled tokens among them.
        wall_time_s: seconds that this process trained; the processes before a resumption are not in it.
        peak_memory: of this process.
        best: the evaluation that early stopping calls best; None where none was made.
        last: the latest one.
        resumed: one link a resumption, oldest first; empty for a run in one piece.
        early_stopped: whether patience ended the run, not ``max_steps``.
        libraries: versions, from `library_versions`.
        schema_version: of this file.
    """

    settings: Mapping[str, Any]
    data_sha256: str
    base: Mapping[str, Any]
    adapter: Mapping[str, Any]
    steps: int
    rows_seen: int
    target_tokens: int
    wall_time_s: float
    peak_memory: PeakMemory
    best: Milestone | None = None
    last: Milestone | None = None
    resumed: Sequence[Resumption] = ()
    early_stopped: bool = False
    libraries: Mapping[str, str] = field(default_factory=library_versions)
    schema_version: int = SCHEMA_VERSION


def write_summary(path: Path, summary: TrainingSummary) -> Path:
    """Write ``summary`` as JSON, whole or not at all; returns ``path``.

    Args:
        path: the file, or a folder, which then gets ``training_summary.json``.
        summary: paths in it become text; NaN and infinities null, which JSON has no word for.
    """
    path = path / SUMMARY if path.is_dir() else path
    with replacing(path) as temporary:
        text = json.dumps(_plain(asdict(summary)), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def read_summary(path: Path) -> dict[str, Any]:
    """What `write_summary` wrote.

    Args:
        path: the file, or its folder.

    Raises:
        InputError: it is missing, is not JSON, or is of another version.
    """
    path = path / SUMMARY if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the --out folder of a finished training run")
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); train again") from error
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path} is not a training summary of version {SCHEMA_VERSION}; train again")
    return found


def peak_memory() -> PeakMemory:
    """Of this process, until now."""
    cuda = torch.cuda.max_memory_allocated() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return PeakMemory(_peak_rss(), cuda)


def _peak_rss() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB


def _plain(value: Any) -> Any:
    """JSON's idea of ``value``."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
