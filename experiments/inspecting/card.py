"""The data card as a document: all that is shown of a data set, as numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bargain_env.errors import InputError

from . import games as game_pass
from . import labels, models, moves, overlaps, presets, provenance, reservation, sample
from .games import SEATS, WIDTHS, Games
from .moves import BINS, Decisions
from .sample import Sample
from .source import Source
from .verdicts import NOTE, OK, Check, worst

CARD_VERSION = 1
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """How to look.

    Attributes:
        sample: games that models are fitted to, about.
        seed: draws them, splits them and resamples them.
        verify: whether to read every file once more for its checksum.
    """

    sample: int
    seed: int
    verify: bool


def card(source: Source, options: Options, told: Callable[[str], None]) -> Document:
    """Read a data set and describe it.

    Args:
        source: where it is.
        options: how to look.
        told: takes a line on what is being done.

    Raises:
        InputError: it holds no games.
    """
    told(f"reading {source.rows('episodes'):,} games, {source.rows('steps'):,} decisions")
    games, decisions = game_pass.tally(source), moves.tally(source)
    if not len(games) or not len(decisions):
        raise InputError(f"{source.folder} holds no games; collect some: python -m experiments.collect")
    drawn = sample.draw(source, len(decisions), options.sample, options.seed)
    told(f"fitting {' and '.join(models.models())} to {len(drawn.ids):,} games, {len(drawn.turn):,} decisions")
    kinds = _presets(drawn)
    curves = reservation.by_turn(drawn, options.seed)
    checks = [
        *reservation.opening_checks(drawn, kinds, options.seed),
        reservation.disclosure_check(curves),
        *labels.label_checks(drawn, kinds, options.seed),
        *overlaps.overlap_checks(games, decisions),
        _limits_as_drawn(kinds),
        *provenance.provenance_checks(source, games, decisions, verify=options.verify),
    ]
    return {
        "card_version": CARD_VERSION,
        "data": source.folder.name or str(source.folder),
        "verdict": worst(checks),
        "checks": [check.document() for check in checks],
        **_counts(games, decisions),
        **_described(games, decisions),
        "presets": _by_preset(drawn, kinds),
        "disclosure": curves,
        "sample": {
            "games": len(drawn.ids),
            "decisions": len(drawn.turn),
            "seed": options.seed,
            "test_share": models.TEST_SHARE,
            "models": list(models.models()),
        },
        "manifest": provenance.about(source),
        "files": {
            table: [path.relative_to(source.folder).as_posix() for path in getattr(source, table)]
            for table in ("episodes", "steps")
        },
    }


def _presets(drawn: Sample) -> NDArray[np.object_]:
    """``[games]`` the preset of each sampled game."""
    opening = drawn.opening
    game, buyer = drawn.game[opening], drawn.seat[opening] == 0
    own, other = drawn.own[opening], drawn.other[opening]
    found = np.full(len(drawn.ids), None, dtype=object)
    names = [drawn.ids[k] for k in game]
    found[game] = presets.named(names, np.where(buyer, own, other), np.where(buyer, other, own))
    return found


def _limits_as_drawn(kinds: NDArray[np.object_]) -> Check:
    """Whether the limits are those that a preset draws for seed and id."""
    title = "limits as a preset draws them"
    known = np.array([kind is not None for kind in kinds], dtype=bool)
    wrong = int((kinds[known] == "").sum())
    figures = {"sampled_games": len(kinds), "of_known_origin": int(known.sum()), "as_drawn": int(known.sum()) - wrong}
    if wrong:
        why = f"{wrong:,} of {int(known.sum()):,} sampled games have limits that no preset draws for their seed and id"
        return Check("limits_as_drawn", title, NOTE, why, "see who changed them since they were collected", figures)
    if not known.any():
        why = "the ids name no seed, so the games come from elsewhere"
        return Check("limits_as_drawn", title, NOTE, why, "know how their limits were drawn", figures)
    names = ", ".join(sorted({str(kind) for kind in kinds[known]}))
    return Check("limits_as_drawn", title, OK, f"{names}, by seed and id", figures=figures)


def _counts(games: Games, decisions: Decisions) -> Document:
    accepts = decisions.accepts.tolist()
    return {
        "games": len(games),
        "decisions": decisions.rows,
        "impasse_share": games.impasses / len(games),
        "splits": [
            {"split": name, "games": n, "deals": deals, "decisions": decisions.splits.get(name, 0)}
            for name, (n, deals) in sorted(games.splits.items(), key=lambda item: -item[1][0])
        ],
        "starters": [{"starter": name, "games": n} for name, n in sorted(games.starters.items(), key=str)],
        "accepts": {
            "share_of_decisions": sum(accepts) / decisions.rows,
            **dict(zip(SEATS, accepts, strict=True)),
        },
    }


def _described(games: Games, decisions: Decisions) -> Document:
    least, greatest, total, squares = games.extent
    mean = total / len(games)
    return {
        "rho": _rho(decisions),
        "turns": [{"turns": t, "impasses": n[0], "deals": n[1]} for t, n in sorted(games.turns.items())],
        "prices": {
            "ranges": [
                {"price_low": low, "price_high": high, "max_turns": turns, "games": n}
                for (low, high, turns), n in games.ranges.most_common(20)
            ],
            "different_ranges": len(games.ranges),
            "offers": {"least": decisions.offers[0], "most": decisions.offers[1], "outside_range": decisions.outside},
        },
        "zopa": {
            "least": float(least),
            "most": float(greatest),
            "mean": float(mean),
            "sd": float(max(squares / len(games) - mean**2, 0.0) ** 0.5),
            "widths": _widths(games),
        },
        "strategies": _strategies(games),
    }


def _rho(decisions: Decisions) -> list[Document]:
    """Decisions of each seat after each starter by class of ρ."""
    return [
        {
            "seat": seat,
            "starter": starter,
            "decisions": int(counts.sum()),
            "edges": [k / BINS for k in range(BINS + 1)],
            "counts": counts[:BINS].tolist(),
            "impasse": int(counts[moves.IMPASSE]),
            "no_label": int(counts[moves.NO_LABEL]),
            "below_0": int(counts[moves.BELOW]),
            "above_1": int(counts[moves.ABOVE]),
        }
        for seat, rows in zip(SEATS, decisions.rho, strict=True)
        for starter, counts in zip(SEATS, rows, strict=True)
    ]


def _widths(games: Games) -> list[Document]:
    """Games by width of the ZOPA, in parts of the public range; those that occur."""
    found = []
    for k, (impasses, deals) in enumerate(games.widths.tolist()):
        if impasses + deals:
            low, high = (k - 1) / WIDTHS, k / WIDTHS
            over = None if k in (0, WIDTHS + 1) else round(low, 6)
            upto = 0.0 if k == 0 else None if k == WIDTHS + 1 else round(high, 6)
            found.append({"over": over, "up_to": upto, "impasses": impasses, "deals": deals})
    return found


def _strategies(games: Games) -> Document:
    names = sorted({name for pair in games.pairs for name in pair})
    seats = {name: [[0, 0], [0, 0]] for name in names}
    for (buyer, seller), (impasses, deals) in games.pairs.items():
        for k, name in enumerate((buyer, seller)):
            seats[name][k][0] += impasses + deals
            seats[name][k][1] += impasses
    played = {pair: sum(n) for pair, n in games.pairs.items()}
    most, least = max(played, key=played.__getitem__), min(played, key=played.__getitem__)
    return {
        "names": [
            {
                "strategy": name,
                "as_buyer": n[0][0],
                "as_seller": n[1][0],
                "impasses_as_buyer": n[0][1],
                "impasses_as_seller": n[1][1],
            }
            for name, n in seats.items()
        ],
        "pairs": [
            {"buyer": buyer, "seller": seller, "games": impasses + deals, "impasses": impasses}
            for (buyer, seller), (impasses, deals) in sorted(games.pairs.items())
        ],
        "pairs_possible": len(names) ** 2,
        "most_games": {"buyer": most[0], "seller": most[1], "games": played[most]},
        "least_games": {"buyer": least[0], "seller": least[1], "games": played[least]},
    }


def _by_preset(drawn: Sample, kinds: NDArray[np.object_]) -> list[Document]:
    """Sampled games and impasses by preset; "" is like none, None of unknown origin."""
    opening = drawn.opening
    kind, deal = kinds[drawn.game[opening]], drawn.success[opening] > 0
    found = []
    for name in dict.fromkeys(kind.tolist()):
        rows = np.array([k == name for k in kind], dtype=bool)
        found.append({"preset": name, "sampled_games": int(rows.sum()), "impasse_share": float((~deal[rows]).mean())})
    return found
