"""What the folder says of itself, and whether its files are those that it speaks of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bargain_env.errors import InputError
from experiments import verify as verification
from experiments.corpus.manifest import DIGEST, NAME

from .games import Games
from .moves import Decisions
from .source import Source
from .verdicts import LEAK, NOTE, OK, Check

_OF_FILES = (DIGEST, "files", "parts")


def provenance_checks(source: Source, games: Games, decisions: Decisions, *, verify: bool) -> Iterator[Check]:
    """Checksums, and counts of the tables against each other and against the manifest."""
    yield _checksums(source, verify)
    yield _counts(source, games, decisions)
    yield _labels(games)


def _checksums(source: Source, verify: bool) -> Check:
    title = "files as they were written"
    if not (source.folder / NAME).is_file():
        return Check("checksums", title, NOTE, f"there is no {NAME}", "keep it beside the tables")
    if not verify:
        return Check("checksums", title, NOTE, "not verified", "leave out --no-verify")
    try:
        found = verification.run(verification.Settings(source.folder, quiet=True))
    except InputError as error:
        return Check("checksums", title, LEAK, str(error), "experiments.verify DATA says what is wrong with each file")
    return Check("checksums", title, OK, f"{found['files']} files, by their checksums", figures=found)


def _counts(source: Source, games: Games, decisions: Decisions) -> Check:
    """Every game has its decisions, and the manifest has counted both."""
    title = "counts agree"
    moves = sum(turns * sum(n) for turns, n in games.turns.items())
    pairs = [("games in steps", len(decisions), "in episodes", len(games)),
             ("decisions", decisions.rows, "turns of all games", moves)]  # fmt: skip
    manifest = source.manifest or {}
    for name, found in (("episodes", len(games)), ("steps", decisions.rows)):
        if isinstance(manifest.get(name), int):
            pairs.append((name, found, "in the manifest", manifest[name]))
    wrong = [f"{a:,} {what}, {b:,} {where}" for what, a, where, b in pairs if a != b]
    if wrong:
        return Check("counts", title, LEAK, "; ".join(wrong), "make the data set again: python -m experiments.prepare")
    return Check("counts", title, OK, f"{len(games):,} games and {decisions.rows:,} decisions in both tables")


def _labels(games: Games) -> Check:
    title = "every deal has a label"
    figures = {"deals_without_rho": games.unlabelled, "limits_outside_range": games.outside}
    if games.unlabelled:
        why = f"{games.unlabelled:,} deals have no ρ, for there is no ZOPA"
        return Check("labels_there", title, NOTE, why, "experiments.prepare drops them", figures)
    if games.outside:
        why = f"{games.outside:,} games have a limit outside the public range"
        return Check("labels_there", title, NOTE, why, "see whether the range was meant so", figures)
    return Check("labels_there", title, OK, "and every limit lies in the public range", figures=figures)


def about(source: Source) -> dict[str, Any]:
    """The manifest without what it says of single files."""
    return {name: value for name, value in (source.manifest or {}).items() if name not in _OF_FILES}
