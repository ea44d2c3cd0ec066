"""What a result was made with: the versions of everything that can move a number."""

from __future__ import annotations

import importlib.metadata
import platform

PACKAGES = ("bargain-lab", "numpy", "scipy", "statsmodels", "pyarrow", "torch", "transformers", "bitsandbytes")


def versions() -> dict[str, str]:
    """Version of Python and of each of `PACKAGES`; ``absent`` where it is not installed. Nothing is imported for it."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
