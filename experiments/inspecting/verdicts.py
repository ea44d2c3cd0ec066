"""What a check found, in a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

OK, NOTE, LEAK = "ok", "note", "leak"
_ORDER = (LEAK, NOTE, OK)


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a data set.

    Attributes:
        name: of the check, for scripts.
        title: what is asked.
        verdict: `OK`, `NOTE` for what one should know, `LEAK` for what spoils training or measuring.
        why: what was found, one line.
        action: what to do; empty where there is nothing to do.
        figures: the numbers behind it.
    """

    name: str
    title: str
    verdict: str
    why: str
    action: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def worst(checks: list[Check]) -> str:
    """The gravest verdict among some checks."""
    return min((check.verdict for check in checks), key=_ORDER.index, default=OK)
