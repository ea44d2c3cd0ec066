"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


class Skipped(Exception):
    """An identity that this model has no use for; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One identity, measured.

    Attributes:
        name: of the identity.
        measured: largest difference, or a count of what is wrong; None where skipped.
        tolerance: what ``measured`` may reach; None where skipped.
        note: what was compared, or why it was skipped.
        at_least: ``measured`` must exceed ``tolerance``: a control, where things must differ.
    """

    name: str
    measured: float | None
    tolerance: float | None
    note: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the identity holds; so does a skipped one. Not a number does not."""
        if self.measured is None or self.tolerance is None:
            return True
        return self.measured > self.tolerance if self.at_least else self.measured <= self.tolerance

    def named(self, name: str) -> Finding:
        """A copy of it under ``name``."""
        return replace(self, name=name)


@dataclass(slots=True)
class Report:
    """What `check_adapter` found; prints as a table.

    Attributes:
        findings: in the order checked.
        awakened: B was given random values for the time of the check.
    """

    findings: list[Finding] = field(default_factory=list)
    awakened: bool = False

    def __str__(self) -> str:
        lines = [("identity", "measured", "tolerance", "")]
        for finding in self.findings:
            sign = "> " if finding.at_least else ""
            numbers = (
                ("-", "-") if finding.measured is None else (_number(finding.measured), _number(finding.tolerance))
            )
            lines.append((finding.name, numbers[0], sign + numbers[1], finding.note))
        widths = [max(len(line[k]) for line in lines) for k in range(3)]
        table = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in lines]
        return "\n".join([*table, *(["(B was next to zero; checked with a random one)"] if self.awakened else [])])


def _number(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"


class IdentityError(AssertionError):
    """An identity does not hold.

    Attributes:
        name: of the identity.
        measured: see `Finding`.
        tolerance: see `Finding`.
        report: everything checked up to here, this identity last.
    """

    def __init__(self, finding: Finding, report: Report) -> None:
        wanted = "more than" if finding.at_least else "at most"
        super().__init__(
            f"{finding.name}: {finding.note}; measured {finding.measured:.3g}, wanted {wanted} {finding.tolerance:.3g}"
        )
        self.name, self.measured, self.tolerance = finding.name, finding.measured, finding.tolerance
        self.report = report
