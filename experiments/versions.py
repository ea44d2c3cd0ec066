"""What a result was made with: the versions of everything that can move a number."""

from __future__ import annotations

from bargain_env.installed import installed_versions

PACKAGES = ("bargain-lab", "numpy", "scipy", "statsmodels", "pyarrow", "torch", "transformers", "bitsandbytes")


def versions() -> dict[str, str]:
    """Version of Python and of each of `PACKAGES`, see `bargain_env.installed`."""
    return installed_versions(PACKAGES)
