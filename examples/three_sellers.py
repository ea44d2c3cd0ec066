"""The task of `maskable_ppo.py` and `ppo_box.py`, and the bar that a learner must clear; run it alone to see the bar.

A buyer faces three sellers that concede with the clock: evenly, late, and on the last turns; each game draws one. The
preset is `hidden`, where nobody knows how wide the ZOPA is. (In `paper` everybody does, and "my limit less 400", which
looks at nothing, already earns .800 where waiting for the last offer earns .839: little is left to learn.)

The bar is the best *constant offer*: name one price for the whole game and accept whatever is as good. Four ways to choose
it, a grid of each, searched on games of the training seeds and measured on games of a seed never trained on. Stricter
still, and reported beside it: the best constant chosen with hindsight on those very games. A learner whose deadline is
`truncated` in place of `terminated`, so that it is paid a guess for stalling, mostly ends below that bar.

    python examples/three_sellers.py        # 11 s
    best constant offer .285 (.285 with hindsight), wait for the last offer .594, omniscient best response .700
"""

from __future__ import annotations

import numpy as np

import agents
import bargain_env
from bargain_env import Moves, Policy, Scenarios, Seat, theory
from bargain_env.opponents import opponent_of

SELLERS = ["boulware_hard", "boulware_firm", "linear_standard"]
GAME = {"seat": "buyer", "opponent": SELLERS, "scenario": "hidden"}
GAMES_AT_ONCE = 64
HELD_OUT = bargain_env.sample("hidden", 2000, seed=1_000_000)  # training plays seeds seed … seed + 63


class ConstantOffer:
    """Offers one price for ever, never above its limit, and accepts what is as good."""

    memoryless = True

    def __init__(self, way: str, x: float) -> None:
        self.name, self.way, self.x = f"{way} {x:.3f}", way, x

    def reset(self, games) -> None:
        """Nothing to forget."""

    def act(self, view) -> Moves:
        """The price, or ACCEPT."""
        games = view.games
        low, width, limit = games.price_low, games.price_high - games.price_low, games.reservation
        price = {
            "x of the public range": low + self.x * width,
            "x of the way to my limit": low + self.x * (limit - low),
            "x of my limit": self.x * limit,
            "my limit less x of the range": limit - self.x * width,
        }[self.way]
        price = np.clip(price, low, limit)
        return Moves(accept=view.standing <= price, price=price)  # NaN, where nothing stands, compares False


CONSTANTS = [
    ConstantOffer(way, x)
    for way in ("x of the public range", "x of the way to my limit", "x of my limit", "my limit less x of the range")
    for x in np.linspace(0, 1, 131)
]


def reward(buyer: Policy, games: Scenarios = HELD_OUT) -> float:
    """The buyer's mean share of the ZOPA, 0 where there is no deal."""
    return float(bargain_env.play(games, buyer, seller()).utilities[:, Seat.BUYER].mean())


def seller() -> Policy:
    """One of the three, drawn for each game."""
    return opponent_of(SELLERS, bargain_env.preset("hidden"))


def training_games(seed: int = 0) -> Scenarios:
    """The first 32 games that each of the parallel environments plays."""
    seeds = np.repeat(seed + np.arange(GAMES_AT_ONCE), 32)
    return bargain_env.sample("hidden", seed=seeds, ids=np.tile(np.arange(32), GAMES_AT_ONCE))


def bar(seed: int = 0) -> tuple[float, float]:
    """What the best constant offer earns on the held-out games: chosen on the training games, and with hindsight."""
    training = training_games(seed)
    best = max(CONSTANTS, key=lambda constant: reward(constant, training))
    return reward(best), max(map(reward, CONSTANTS))


def report(path: str, seed: int, seconds: float) -> None:
    """Say how a saved policy does on the held-out games, and fail if that is not better than the bar."""
    learned, (constant, hindsight) = reward(agents.LearnedPolicy(path)), bar(seed)
    print(
        f"learned {learned:.3f} in {seconds:.0f} s; best constant offer {constant:.3f} ({hindsight:.3f} with hindsight)"
    )
    assert learned > max(constant, hindsight), "the learner must beat the best constant offer"


def main() -> None:
    """The bar and two landmarks."""
    constant, hindsight = bar()
    waiting = agents.make("hardliner")  # its own low price until the last two turns, then its limit, nearly
    ceiling = theory.best_response(seller(), HELD_OUT, Seat.BUYER, uses_history=False).values.mean()
    print(f"best constant offer {constant:.3f} ({hindsight:.3f} with hindsight)", end=", ")
    print(f"wait for the last offer {reward(waiting):.3f}, omniscient best response {ceiling:.3f}")


if __name__ == "__main__":
    main()
