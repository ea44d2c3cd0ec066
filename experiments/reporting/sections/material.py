"""What every part of a report is made from, and how it writes numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, TypeAlias

from ..games import Games
from ..plots import Element as Element

Document: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Material:
    """A tournament, read.

    Attributes:
        found: ``summary.json``.
        games: what single games tell.
    """

    found: Document
    games: Games

    @property
    def settings(self) -> Document:
        """What was asked for."""
        settings: Document = self.found["settings"]
        return settings

    @property
    def seats(self) -> list[str]:
        """Seats that were played."""
        return list(self.settings["seats"])

    @property
    def dials(self) -> list[str]:
        """Agents under test that take ρ, then controls that do."""
        found, controls = list(self.found["calibration_by_agent"]), self.settings.get("controls", [])
        return [a for a in found if a not in controls] + [a for a in found if a in controls]

    @property
    def tested(self) -> list[str]:
        """Agents under test that take ρ; where all are controls, these."""
        controls = self.settings.get("controls", [])
        return [a for a in self.dials if a not in controls] or self.dials

    def file_name(self, kind: str, agent: str, *more: str) -> str:
        """The name of the files of an agent's chart: letters and digits, another for every agent."""
        agents = list(self.settings["agents"])
        before = agents[: agents.index(agent)] if agent in agents else []
        twins = sum(_slug(other) == _slug(agent) for other in before)
        words = [kind, agent, *([str(twins + 1)] if twins else []), *more]
        return "-".join(_slug(word) for word in words)


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def text(value: float | None) -> str:
    """Three digits."""
    return "–" if value is None else f"{round(value, 3) + 0.0:.3f}"


def signed(value: float) -> str:
    """Three digits with a sign; no minus before zero."""
    return f"{round(value, 3) + 0.0:+.3f}"


def percent(value: float | None) -> str:
    """A share."""
    return "–" if value is None else f"{100 * value:.1f} %"


def bounds(low: float | None, high: float | None, sign: str = "") -> str:
    """An interval; nothing where there is none."""
    if low is None or high is None:
        return ""
    return f"[{round(low, 3) + 0.0:{sign}.3f}, {round(high, 3) + 0.0:{sign}.3f}]"


def span(row: Document, name: str) -> str:
    """A figure of a row with its interval."""
    return f"{text(row.get(name))} {bounds(row.get(f'{name}_low'), row.get(f'{name}_high'))}".strip()


def share(row: Document, name: str) -> str:
    """A share of a row with its interval."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{percent(row.get(name))}{interval}"


def p_value(p: float | None) -> str:
    """As papers write them."""
    if p is None:
        return "–"
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 1 else "1"


def shown(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {shown(v)}" for k, v in value.items())
    return ", ".join(map(shown, value)) if isinstance(value, list) else str(value)


def definitions(entries: Document) -> str:
    """Names and what they stand for, as an element of a page."""
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(shown(v))}</dd>' for k, v in entries.items())}</dl>"
