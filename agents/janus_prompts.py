"""What Janus reads: the decisions of a `SeatView` as the texts it was trained on."""

from __future__ import annotations

import numpy as np

from bargain_env.core import Seat
from bargain_env.policy import Floats, SeatGames, SeatView
from hyperlora.prompt import Axis, decision_prompt, price_axis


def axis(games: SeatGames, prompt_format: int) -> Axis:
    """How a model that was trained with these prompts counts prices; its parts are ``[b]``."""
    return price_axis(prompt_format, games.price_low, games.price_high, games.reservation, games.seat.label)


def prompts(view: SeatView, rho: Floats, k_history: int, prompt_format: int) -> list[str]:
    """The text of each row's decision; rows may be on different turns.

    Args:
        view: b decisions of one seat.
        rho: ``[b]`` requested settlement of each.
        k_history: history slots that the model was trained with.
        prompt_format: likewise.
    """
    games = view.games
    roles = [Seat(int(side)).label for side in (view.sides[0] if len(view) else [])]
    lows, highs = games.price_low.tolist(), games.price_high.tolist()
    limits, most = games.reservation.tolist(), games.max_turns.tolist()
    turns = np.broadcast_to(view.turn, len(view)).tolist()
    texts = []
    for i, (request, standing, prices) in enumerate(
        zip(rho.tolist(), view.standing.tolist(), view.prices.tolist(), strict=True)
    ):
        offers = [(role, price) for role, price in zip(roles, prices, strict=True) if price == price]
        texts.append(
            decision_prompt(
                rho=request,
                turn=turns[i],
                max_turns=most[i],
                reservation=limits[i],
                roles=[role for role, _ in offers],
                prices=[price for _, price in offers],
                last_offer=standing if standing == standing else None,
                low=lows[i],
                high=highs[i],
                k=k_history,
                prompt_format=prompt_format,
                seat=games.seat.label,
            )
        )
    return texts
