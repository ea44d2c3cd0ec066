"""A folder of trained personas as a `agents.modelling.Pool`: whom an opponent may be taken for."""

from __future__ import annotations

import json
from pathlib import Path

from agents.modelling import Counterpart, Pool
from bargain_env.errors import InputError
from hyperlora.peft_format import PEFT_CONFIG

from .folder import PER_USER, PERSONAS, POOLED, TRAINED, read_personas

PUBLIC = "public"


def home_of(folder: Path) -> Path:
    """The folder of ``experiments.personas make`` that ``folder`` is, or whose ``lora_per_user`` it is.

    Raises:
        InputError: it is neither.
    """
    for home in (folder, *([folder.parent] if folder.name == PER_USER else [])):
        if (home / PERSONAS).is_file():
            return home
    what = (
        "no such folder" if not folder.exists() else f"neither it nor the folder around a {PER_USER} holds {PERSONAS}"
    )
    raise InputError(
        f"no persona adapters at {str(folder)!r}: {what}; make them with `python -m experiments.personas make` and `train`"
    )


def read_pool(folder: Path, base: str | None = None) -> Pool:
    """The adapters in ``folder``, as far as they are trained.

    Args:
        folder: of ``experiments.personas``, or ``lora_per_user`` in it.
        base: what to load them on, if not the base that they were trained on by name.

    Raises:
        InputError: it is not there or holds no adapter, or they were trained on prompts that show private limits.
    """
    home = home_of(folder)
    settings, personas = read_personas(home)
    if settings.get("limit") != PUBLIC:
        raise InputError(
            f"the personas in {home} were made with --limit {settings.get('limit')}: their adapters are to be shown limits "
            "that no opponent may know; make others with --limit public"
        )
    path = home / TRAINED
    there = [one for one in personas if (home / PER_USER / one.id / PEFT_CONFIG).is_file()]
    if not there or not path.is_file():
        raise InputError(f"{home} holds no trained adapters; run `python -m experiments.personas train {home}` first")
    about = json.loads(path.read_text())
    pooled = home / POOLED
    return Pool(
        base=base or about["model_name"],
        base_digest=about["base_digest"],
        prompt_format=about["prompt_format"],
        counterparts=tuple(
            Counterpart(one.id, home / PER_USER / one.id, one.family, one.preset, one.seat) for one in there
        ),
        pooled=pooled if (pooled / PEFT_CONFIG).is_file() else None,
    )


def files_of(folder: Path) -> list[Path]:
    """All that a player with these adapters depends on, whichever of them it loads: files, and folders of adapters."""
    home = home_of(folder)
    some = [home / name for name in (PERSONAS, TRAINED, POOLED) if (home / name).exists()]
    return some + [place.parent for place in sorted((home / PER_USER).glob(f"*/{PEFT_CONFIG}"))]
