"""What a run writes: the adapter as PEFT reads it, its tokenizer, and a summary; each whole, the summary last."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from bargain_env.errors import InputError
from bargain_env.files import replacing
from hyperlora.adapter_files import refuse_broken
from hyperlora.adapters.provenance import SUMMARY
from hyperlora.tokens import save_tokenizer

CHECKPOINTS, RUN = "checkpoints", "run.json"
SCHEMA_VERSION = 1
WRITING = ".writing-"
"""How the names of folders begin in which files are made."""


def refuse_occupied(out: Path, resume: bool) -> None:
    """Raise `InputError` where writing to ``out`` would lose something, or there is nothing to resume."""
    run = out / CHECKPOINTS / RUN
    if out.exists() and not out.is_dir():
        raise InputError(f"--output-dir {out} is a file; choose another")
    if resume and not run.is_file():
        raise InputError(f"--resume: {out} holds no run ({CHECKPOINTS}/{RUN}); leave --resume out to begin one")
    if not resume and run.is_file():
        raise InputError(f"{out} holds a run already; continue it with --resume, or choose another --output-dir")
    if not resume and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} holds other files, which could be lost; choose another --output-dir")


def begin(out: Path, identity: dict[str, Any]) -> Path:
    """Make the folder of checkpoints and note what the run is; returns the folder."""
    folder = out / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    _clear(out)
    with replacing(folder / RUN) as temporary:
        temporary.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
    return folder


def _clear(out: Path) -> None:
    """Remove what killed writers of an earlier part of the run left."""
    for path in [*out.glob(f"{WRITING}*"), *out.glob(f".{SUMMARY}.*"), *(out / CHECKPOINTS).glob(f".{RUN}.*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def checkpoint_of(out: Path, identity: dict[str, Any]) -> Path | None:
    """The last whole checkpoint of the run in ``out``; None where it was stopped before its first.

    Raises:
        InputError: that run had other settings or rows.
    """
    before = json.loads((out / CHECKPOINTS / RUN).read_text(encoding="utf-8"))
    changed = [f"{k} {before.get(k)!r} → {v!r}" for k, v in identity.items() if before.get(k) != v]
    if changed:
        raise InputError(f"--resume continues the same run, but {', '.join(changed)}; repeat the first run's options")
    found = [p for p in (out / CHECKPOINTS).glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    whole = [path for path in found if _is_whole(path)]
    return max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def _is_whole(checkpoint: Path) -> bool:
    """Whether the Trainer finished it: its own state is the last file that it writes, and one that was cut is no JSON."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def write(model: Any, tokenizer: Any, out: Path, summary: dict[str, Any]) -> None:
    """Write the adapter, the tokenizer and the summary; files of an earlier end of the same run are replaced.

    Raises:
        InputError: a weight of the adapter is not finite; nothing is written.
    """
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    refuse_broken(trained, "the adapter cannot be used")
    temporary = Path(tempfile.mkdtemp(prefix=WRITING, dir=out))
    try:
        model.save_pretrained(str(temporary), save_embedding_layers=False)  # they do not train
        save_tokenizer(tokenizer, temporary)
        for path in sorted(temporary.iterdir()):
            path.replace(out / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    with replacing(out / SUMMARY) as file:
        file.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
