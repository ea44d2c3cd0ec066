"""Charts of the dial: requested against achieved ρ, with the agreement rate of the same games below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .charts import AGENT_LOOKS, CONTROL_COLOURS, INK, SEAT_COLOURS, new_figure, numbers, short, style

Row = Mapping[str, Any]
Curve = tuple[str, Row, dict[str, Any]]
"""What a curve is called, its figures (see `experiments.reporting.calibration`), and how it is drawn."""

SPLITS = {
    "train": "opponents of training",
    "validation": "validation opponents",
    "held_out": "held-out opponents",
    "agent": "other agents",
}
"""What the splits of opponents are called."""
_OPEN = {"validation": (0, (8, 2)), "held_out": (0, (5, 2)), "agent": (0, (1.5, 1.5))}


def calibration_chart(summary: Row, agent: str, seats: Sequence[str]) -> Figure:
    """One agent's dial, a column for each seat, against each kind of opponent apart; controls are muted."""
    with style():
        figure = new_figure(4.6 * len(seats), 5.4)
        axes = figure.subplots(2, len(seats), sharex=True, sharey="row", squeeze=False, height_ratios=(3.2, 1))
        for place, seat in enumerate(seats):
            curves = list(_one_agent(summary, agent, seat))
            column(axes[0, place], axes[1, place], f"{short(agent)} as {seat}", curves, first=place == 0)
        return figure


def _one_agent(summary: Row, agent: str, seat: str) -> Iterator[Curve]:
    marker = "o" if seat == "buyer" else "s"
    look: dict[str, Any] = {
        "color": SEAT_COLOURS[seat],
        "marker": marker,
        "markersize": 4.8,
        "linewidth": 1.7,
        "zorder": 3,
    }
    apart = {
        split: by_agent[agent][seat]
        for split, by_agent in summary.get("calibration_by_split", {}).items()
        if seat in by_agent.get(agent, {})
    }
    if len(apart) < 2:
        kind = SPLITS.get(next(iter(apart), ""), "all opponents")
        yield kind, summary["calibration_by_agent"][agent][seat], look
    else:
        for split, found in apart.items():
            hollow = {"markerfacecolor": "none", "linestyle": _OPEN[split]} if split in _OPEN else {}
            yield SPLITS.get(split, split), found, look | hollow
    controls = [c for c in summary["settings"].get("controls", []) if c != agent]
    for i, control in enumerate(controls):
        found = summary["calibration_by_agent"].get(control, {}).get(seat)
        if found:
            colour = CONTROL_COLOURS[i % len(CONTROL_COLOURS)]
            muted = {"color": colour, "marker": "vP*"[i % 3], "markersize": 3.4, "linewidth": 1.0, "zorder": 2}
            yield f"control: {short(control)}", found, muted


def agents_chart(summary: Row, agents: Sequence[str], seat: str) -> Figure:
    """Several agents' dials at one seat over all opponents, for instance the arms of an ablation."""
    curves = []
    for i, agent in enumerate(agents):
        found = summary["calibration_by_agent"].get(agent, {}).get(seat)
        if found:
            colour, marker, line = AGENT_LOOKS[i % len(AGENT_LOOKS)]
            look = {
                "color": colour,
                "marker": marker,
                "linestyle": line,
                "markersize": 4.2,
                "linewidth": 1.4,
                "zorder": 3,
            }
            curves.append((short(agent, 36), found, look))
    with style():
        figure = new_figure(4.6, 5.4)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        column(top, bottom, f"as {seat}", curves, first=True)
        return figure


def column(top: Axes, bottom: Axes, title: str, curves: Sequence[Curve], first: bool) -> None:
    """Dials at one seat in two axes, one above the other; the ``first`` column of a figure names its axes."""
    top.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=(0, (5, 4)), zorder=1)
    top.text(0.97, 0.985, "asked = got", rotation=45, transform_rotates_text=True, rotation_mode="anchor",
             ha="right", va="bottom", fontsize=8)  # fmt: skip
    top.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), title=title)
    bottom.set(ylim=(0, 1.06), xlabel="requested ρ")
    bottom.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    if first:
        top.set_ylabel("achieved ρ (deals only)")
        bottom.set_ylabel("agreement")
    for axes in (top, bottom):
        axes.grid(True)
        axes.set_axisbelow(True)
    for name, found, look in curves:
        _curve(top, bottom, name, found, look)
    top.legend(loc="upper left")


def _curve(top: Axes, bottom: Axes, name: str, found: Row, look: Mapping[str, Any]) -> None:
    rho = numbers(found["rho"])
    shown = rho >= 0
    for axes, measure in ((top, "achieved"), (bottom, "agreement_rate")):
        mean, low, high = (numbers(found[f"{measure}{bound}"])[shown] for bound in ("", "_low", "_high"))
        bars = np.nan_to_num(np.abs(np.stack([mean - low, high - mean])))
        axes.errorbar(rho[shown], mean, yerr=bars, label=name, elinewidth=1, capsize=2, **look)


def curve_records(summary: Row, agents: Sequence[str], seat: str) -> Iterator[dict[str, Any]]:
    """What the charts above draw, as rows of data: one for each agent, kind of opponent and request."""
    splits = {"all": summary["calibration_by_agent"], **summary.get("calibration_by_split", {})}
    names = (
        "achieved",
        "achieved_low",
        "achieved_high",
        "deals",
        "agreement_rate",
        "agreement_rate_low",
        "agreement_rate_high",
    )
    for agent in agents:
        for split, by_agent in splits.items():
            found = by_agent.get(agent, {}).get(seat)
            for k, rho in enumerate(found["rho"] if found else []):
                figures = {name: found[name][k] for name in names}
                yield {"agent": agent, "seat": seat, "opponents": split, "rho_requested": rho, **figures}
