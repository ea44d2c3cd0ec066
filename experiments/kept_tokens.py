"""Where `experiments.train` and `experiments.pretrain` keep token ids for the next run on the same decisions."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from hyperlora.data import steps_file
from hyperlora.token_cache import TokenCache

BESIDE, NOWHERE = "auto", "none"
FOLDER = ".tokens"


def token_cache(option: str, data: Path, console: Console) -> TokenCache | None:
    """The folder that ``--token-cache`` names.

    Args:
        option: a folder; ``auto``, `FOLDER` beside the data; or ``none``.
        data: as in `hyperlora.data.steps_file`.
        console: told when nothing can be kept.

    Raises:
        InputError: there are no such data.
    """
    if option == NOWHERE:
        return None
    folder = steps_file(data).parent / FOLDER if option == BESIDE else Path(option)
    return TokenCache(folder, lambda text: console.print(text, soft_wrap=True, markup=False))
