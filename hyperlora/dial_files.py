"""A calibrated dial put into an adapter's folder, or into a copy of it; with its paragraph of the card."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from bargain_env.files import replacing, replacing_folder

from .adapter_files import CARD, CONFIG, adapter_folder, read_config
from .base import NANO, nano_folder
from .checkpoint import resolve_base
from .dial import KEY, Dial

HEAD = "## Calibrated dial"
_SECTION = re.compile(rf"\n*^{HEAD}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def save_dial(adapter: Path | str, dial: Dial | None, out: Path | None = None) -> Path:
    """Write ``dial`` into the config of an adapter, in place of the one it has; config and card are whole or as before.

    Args:
        adapter: ``janus-nano``, a folder, or one that holds it as ``adapter/``.
        dial: None removes it.
        out: a copy of the folder to write it into, replaced if it is an adapter's, which is then all that changes.

    Returns:
        The folder that holds it.

    Raises:
        InputError: there is no adapter, or ``out`` holds something else.
    """
    source = nano_folder() if str(adapter) == NANO else Path(adapter)
    inner = adapter_folder(source)
    if out is None:
        _rewrite(inner, read_config(inner), dial)
        return source
    config, named = read_config(inner), str(read_config(inner)["base_model"])
    whole = inner == source / "adapter"  # then the base is copied too
    with replacing_folder(out, f"adapter/{CONFIG}" if whole else CONFIG) as temporary:
        shutil.copytree(source if whole else inner, temporary, dirs_exist_ok=True)
        copy = temporary / "adapter" if whole else temporary
        if not whole and resolve_base(copy, named) != resolve_base(inner, named):
            config["base_model"] = resolve_base(inner, named)  # what lies beside the one does not lie beside the other
        _rewrite(copy, config, dial)
    return out


def _rewrite(folder: Path, config: dict[str, Any], dial: Dial | None) -> None:
    others = {name: value for name, value in config.items() if name != KEY}
    card = folder / CARD
    if card.is_file():
        with replacing(card) as temporary:
            temporary.write_text(with_dial(card.read_text(encoding="utf-8"), dial), encoding="utf-8")
    with replacing(folder / CONFIG) as temporary:
        entry = {} if dial is None else {KEY: dial.as_config()}
        temporary.write_text(json.dumps({**others, **entry}, indent=2) + "\n", encoding="utf-8")


def with_dial(card: str, dial: Dial | None) -> str:
    """A model card whose section on the dial is that of ``dial``, at its end."""
    rest = _SECTION.sub("\n\n", card).rstrip("\n")
    return f"{rest}\n" if dial is None else f"{rest}\n\n{_section(dial)}\n"


def _section(dial: Dial) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in dial.fitted.items()) or "not recorded"
    reach = " and ".join(
        f"{knots.internal[0]:.3f} to {knots.internal[-1]:.3f} as {name}"
        for name, knots in (("buyer", dial.buyer), ("seller", dial.seller))
    )
    single = f"; games of {' and '.join(dial.scenarios)} have maps of their own" if dial.scenarios else ""
    return (
        f"{HEAD}\n\nPlayed by this project's agents, a requested ρ is first put through a monotone map, one for each seat, "
        f"so that games settle on average at what was asked for: `{KEY}` in the config. It sets internal values from "
        f"{reach}{single}. `--raw-dial` plays without it; whoever binds ρ to the model itself binds internal values.\n\n"
        f"- Fitted: {facts}"
    )
