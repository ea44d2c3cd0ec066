"""The canonical prompt: the one place where a decision becomes text, in training and at the table.

Format 2 is the seed report's section 4 (four-decimal ρ, ``<SUCCESS>``, ``<HISTORY_LEN>``, ``EMPTY:EMPTY`` padding, 11
markers); format 1 is its older edition (two decimals, ``PAD:0.0000`` padding, 9 markers). Prices are normalised to [0, 1]
over the public range. There is no role: posture comes from ρ.

Format 3 says what format 2 says, in another order: what stands for a whole game first, then the offers without padding, and
last what is new on each turn. So a prompt begins as the one of the turn before it, as long as no offer has left the history,
and its keys and values can be used again.

Format 4 is format 2 seen from the own seat. The limit says whose it is, ``buyer:0.4638``: in the others a history names the
seats, and the last offer is the opponent's, but who opens a game has nothing to tell its seat by except its limit, which on
``hidden`` may be either's. And every offer is its distance from that limit in the own favour, over the width of the range: a
buyer's 0.2 is a fifth of the range below its limit, and -0.1 a tenth beyond it. So what ρ asks for does not move with the
limit, both seats read the same numbers, and an answer cannot name a price beyond the own limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

SPECIAL_TOKENS = [
    "<RHO>",
    "<RHO_FAIL>",
    "<SUCCESS>",
    "<TURN>",
    "<TURNS_REMAINING>",
    "<RESERVATION_NORM>",
    "<LAST_OFFER_NORM>",
    "<HISTORY_LEN>",
    "<HISTORY>",
    "<INSTRUCTION>",
    "<OUTPUT>",
]
"""Markers of prompt formats 2 and 4."""

SPECIAL_TOKENS_V1 = [
    "<RHO>",
    "<TURN>",
    "<TURNS_REMAINING>",
    "<RESERVATION_NORM>",
    "<LAST_OFFER_NORM>",
    "<HISTORY>",
    "<INSTRUCTION>",
    "<OUTPUT>",
    "<RHO_FAIL>",
]
"""Markers of prompt format 1."""

SPECIAL_TOKENS_V3 = [marker for marker in SPECIAL_TOKENS if marker != "<HISTORY_LEN>"]
"""Markers of prompt format 3."""

STATIC_FIRST, SEATED = 3, 4
"""The prompt format whose prompts begin as those of earlier turns do, and the one seen from the own seat."""

K_HISTORY = 8
"""History slots in a prompt."""

INSTRUCTION = "Output exactly one of:\nACCEPT\nOFFER <PRICE_NORM>"
PADDING = {1: "PAD:0.0000", 2: "EMPTY:EMPTY", SEATED: "EMPTY:EMPTY"}
_MARKERS = {1: SPECIAL_TOKENS_V1, 2: SPECIAL_TOKENS, STATIC_FIRST: SPECIAL_TOKENS_V3, SEATED: SPECIAL_TOKENS}
PROMPT_FORMATS = tuple(sorted(_MARKERS))


def markers(prompt_format: int = 2) -> list[str]:
    """The special tokens of a prompt format.

    Raises:
        ValueError: there is no such format.
    """
    if prompt_format not in _MARKERS:
        raise ValueError(f"prompt format {prompt_format} does not exist; choose 1, 2, 3 or 4")
    return list(_MARKERS[prompt_format])


def normalize_price(value: float, low: float, high: float) -> float:
    """``value`` as a share of [low, high], clamped to [0, 1]; 0.0 where the range is degenerate (high - low ≤ 1e-6)."""
    if high - low <= 1e-6:
        return 0.0
    return min(1.0, max(0.0, (value - low) / (high - low)))


class Axis(NamedTuple):
    """How prices become the numbers of a prompt and of its answer: ``(price - origin) / span``, from ``least`` to 1.

    Attributes:
        origin: price at 0, in currency units; a number, or an array of them.
        span: from there to 1, signed; negative where a number grows as the price falls.
        least: 0, or -1 where prices on the other side of the origin are told.
    """

    origin: Any
    span: Any
    least: float

    def price(self, share: Any) -> Any:
        """Price of a number, in currency units."""
        return self.origin + share * self.span

    def row(self, i: int) -> Axis:
        """One of several."""
        return Axis(float(self.origin[i]), float(self.span[i]), self.least)

    def text(self, price: float) -> str:
        """Number of a price, with four decimals; 0 where the range is degenerate."""
        share = (price - self.origin) / self.span if abs(self.span) > 1e-6 else 0.0
        return f"{round(min(1.0, max(self.least, share)), 4) + 0.0:.4f}"  # + 0.0: there is no -0.0000


def price_axis(prompt_format: int, low: Any, high: Any, reservation: Any, seat: str | None) -> Axis:
    """The axis of one decision, or of many of one seat with arrays for ``low``, ``high`` and ``reservation``.

    Args:
        prompt_format: 1, 2, 3 or 4.
        low: lower end of the public range.
        high: upper end.
        reservation: own limit (format 4 only).
        seat: ``buyer`` or ``seller``, who decides (format 4 only).

    Raises:
        ValueError: format 4 without a seat.
    """
    if prompt_format != SEATED:
        return Axis(low, high - low, 0.0)
    if seat is None:
        raise ValueError("prompt format 4 is seen from the own seat; give the seat")
    return Axis(reservation, low - high if seat == "buyer" else high - low, -1.0)


def is_failure(rho: float) -> bool:
    """Whether ρ stands for an impasse (-1); a deal a rounding error below 0 does not."""
    return rho <= -0.5


def format_rho_text(rho: float, prompt_format: int = 2) -> str:
    """``<RHO> 0.5300``, or ``<RHO> <RHO_FAIL>`` for an impasse; two decimals in format 1. Clamped to [0, 1].

    The only place where ρ becomes text.
    """
    if is_failure(rho):
        return "<RHO> <RHO_FAIL>"
    shown = min(1.0, max(0.0, rho))
    return f"<RHO> {shown:.2f}" if prompt_format == 1 else f"<RHO> {shown:.4f}"


def format_success_text(rho: float) -> str:
    """``<SUCCESS> 1`` for ρ in [0, 1], ``<SUCCESS> 0`` for an impasse."""
    return "<SUCCESS> 0" if is_failure(rho) else "<SUCCESS> 1"


def build_history_str(
    roles: Sequence[str],
    prices: Sequence[float],
    low: float,
    high: float,
    k: int = K_HISTORY,
    prompt_format: int = 2,
    axis: Axis | None = None,
) -> tuple[str, int]:
    """The last ``k`` offers in ``k`` fixed slots, oldest first, padded in front; format 3 has no padding.

    Args:
        roles: ``buyer`` or ``seller`` for each past offer, oldest first.
        prices: their prices, in currency units.
        low: lower end of the public range.
        high: upper end.
        k: number of slots.
        prompt_format: 1, 2, 3 or 4.
        axis: from `price_axis`; by default from ``low`` to ``high``, which is right but for format 4.

    Returns:
        The text and the number of slots that hold an offer.
    """
    axis = Axis(low, high - low, 0.0) if axis is None else axis
    entries = [f"{role}:{axis.text(price)}" for role, price in list(zip(roles, prices, strict=True))[-k:]]
    padding = [] if prompt_format == STATIC_FIRST else [PADDING[prompt_format]] * (k - len(entries))
    return " ".join(padding + entries), len(entries)


def build_prompt(
    rho: float,
    turn: int,
    max_turns: int,
    turns_remaining: int,
    reservation_norm: float,
    last_offer_norm_str: str,
    history_len: int,
    history_str: str,
    prompt_format: int = 2,
    seat: str | None = None,
) -> str:
    """The prompt of one decision; the target follows it directly.

    Args:
        rho: requested or hindsight settlement in [0, 1], or -1.
        turn: the turn about to be played, from 1.
        max_turns: moves of both seats together.
        turns_remaining: ``max_turns - turn``.
        reservation_norm: own limit, normalised.
        last_offer_norm_str: the other side's latest offer as `Axis.text` says it, or ``NA``.
        history_len: filled history slots (formats 2 and 4).
        history_str: from `build_history_str`, in the same format.
        prompt_format: 1, 2, 3 or 4.
        seat: ``buyer`` or ``seller``, who decides (format 4 only).

    Raises:
        ValueError: format 4 without a seat.
    """
    if prompt_format == SEATED and seat is None:
        raise ValueError("prompt format 4 is seen from the own seat; give the seat")
    request = [format_rho_text(rho, prompt_format), *([] if prompt_format == 1 else [format_success_text(rho)])]
    whose = f"{seat}:" if prompt_format == SEATED else ""
    limit, instruction = f"<RESERVATION_NORM> {whose}{reservation_norm:.4f}", f"<INSTRUCTION> {INSTRUCTION}"
    clock = [f"<TURN> {turn} / {max_turns}", f"<TURNS_REMAINING> {turns_remaining}"]
    last, history = f"<LAST_OFFER_NORM> {last_offer_norm_str}", f"<HISTORY> {history_str}"
    if prompt_format == STATIC_FIRST:
        history = f"<HISTORY> {history_str}" if history_str else "<HISTORY>"
        lines = [*request, limit, instruction, history, *clock, last]
    else:
        filled = [f"<HISTORY_LEN> {history_len}"] if prompt_format in (2, SEATED) else []
        lines = [*request, *clock, limit, last, *filled, history, instruction]
    return "\n".join([*lines, "<OUTPUT>\n"])


def build_target(action: str, price_norm: float | None) -> str:
    """``ACCEPT`` or ``OFFER 0.4123``, without the end-of-sequence token.

    Raises:
        ValueError: the action is neither, or an offer has no price.
    """
    if action == "ACCEPT":
        return "ACCEPT"
    if action == "OFFER" and price_norm is not None:
        return f"OFFER {price_norm:.4f}"
    raise ValueError(f"action {action!r} with price {price_norm} is neither ACCEPT nor OFFER with a price")


def decision_target(action: str, price: float | None, axis: Axis) -> str:
    """`build_target` from a price in currency units; what no answer can say becomes the nearest that it can."""
    return build_target(action, None if price is None else max(0.0, float(axis.text(price))))


def decision_prompt(
    rho: float,
    turn: int,
    max_turns: int,
    reservation: float,
    roles: Sequence[str],
    prices: Sequence[float],
    last_offer: float | None,
    low: float,
    high: float,
    k: int = K_HISTORY,
    prompt_format: int = 2,
    seat: str | None = None,
) -> str:
    """`build_prompt` from raw prices in currency units: what both training rows and `JanusAgent` call.

    Args:
        last_offer: the offer that may be accepted, or None.
        (others): as in `build_prompt` and `build_history_str`.
    """
    axis = price_axis(prompt_format, low, high, reservation, seat)
    history, filled = build_history_str(roles, prices, low, high, k, prompt_format, axis)
    last = "NA" if last_offer is None else axis.text(last_offer)
    return build_prompt(
        rho=rho,
        turn=turn,
        max_turns=max_turns,
        turns_remaining=max_turns - turn,
        reservation_norm=normalize_price(reservation, low, high),
        last_offer_norm_str=last,
        history_len=filled,
        history_str=history,
        prompt_format=prompt_format,
        seat=seat,
    )
