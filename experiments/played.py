"""Tournaments as parts of another command: one that was played to its end is not played again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bargain_env.files import replacing
from experiments import cli, tournament
from experiments.match import results
from experiments.match.identity import identify

STAMP = "finished.json"
"""What a finished tournament's games depend on (see `experiments.match.identity`), beside its results."""


def episodes(settings: tournament.Settings) -> Path:
    """The games of a tournament: played, continued, or found finished with the same settings, files and code.

    Raises:
        InputError: as `experiments.tournament.run`.
    """
    folder, document = cli.output_folder(settings.out), _document(settings)
    stamp, games = folder / STAMP, folder / results.EPISODES
    if not (stamp.is_file() and games.is_file() and _read(stamp) == document):
        stamp.unlink(missing_ok=True)
        tournament.run(settings)
        with replacing(stamp) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return games


def _document(settings: tournament.Settings) -> Any:
    players, plan = tournament.prepared(settings)
    described = tournament.described(settings, players, plan)
    return identify(described, players, plan, (settings.plugin, settings.base)).document


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # half a file is no proof of anything
        return None
