"""What a policy is shown of games on different turns: the same as of each alone, and so it plays the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from faces import same, some_actions
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import agents
import bargain_env as be
from bargain_env import Linear, Mixture, Moves, Seat, SeatGames, SeatView
from bargain_env.policy import act_on_any_turns
from bargain_env.single import BargainEnv
from bargain_env.vector import BargainVectorEnv

KNOWN = ["reservation", "price_low", "price_high", "max_turns", "starter", "tick", "discount", "id", "seed"]


class Spy:
    """Offers anywhere, and notes all that it is shown, row by row."""

    memoryless = mixed_turns = True

    def __init__(self):
        self.name, self.seen = "spy", set()

    def reset(self, games):
        pass

    def act(self, view):
        turns = np.broadcast_to(view.turn, len(view))
        for k, turn in enumerate(turns.tolist()):
            game = [getattr(view.games, name)[k].item() for name in KNOWN]
            past, width = turn - 1, view.prices.shape[1]
            assert np.isnan(view.prices[k, : width - past]).all(), "nothing was offered before the game"
            shown = [view.games.seat, *game, view.standing[k].item()]
            shown += [*view.prices[k, width - past :].tolist(), *view.sides[k, width - past :].tolist()]
            shown += [
                *view.own_offers[k].tolist()[::-1][: past // 2],
                *view.opponent_offers[k].tolist()[::-1][: turn // 2],
            ]
            self.seen.add((game[-1], game[-2], turn, repr(shown)))
        price = 150 + 1400 * view.games.uniform(view.turn)[:, 0]
        return Moves(view.games.uniform(view.turn, 2)[:, 1] < 0.1, price)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP], ids=lambda mode: mode.value)
@pytest.mark.parametrize("seat", ["buyer", "seller"])
def test_the_opponent_is_shown_the_same(seat, mode):
    spies = Spy(), Spy()
    vector = BargainVectorEnv(8, seat, spies[0], max_turns=9, autoreset_mode=mode)
    one = [lambda: BargainEnv(seat, spies[1], max_turns=9)] * 8
    scalars = SyncVectorEnv(one, autoreset_mode=mode)
    same(vector.reset(seed=0), scalars.reset(seed=0))
    rng = np.random.default_rng(0)
    for _ in range(40):
        actions = some_actions(vector, rng)
        same(vector.step(actions), scalars.step(actions))
    many, few = (spy.seen for spy in spies)
    assert len(few) > 200
    assert few <= many
    # Beyond that: openings of games to come, and, in NEXT_STEP, answers in slots whose game is about to be replaced.
    assert {turn for _, _, turn, _ in many - few} <= ({1} if mode is AutoresetMode.SAME_STEP else {1, 2})


def mixed_view(seat, n=60, max_turns=20):
    """Games between strangers, on any turn of ``seat``'s, some turns wasted; the histories come with them."""
    rng = np.random.default_rng(9)
    games = replace(be.sample("hidden", n, seed=1, max_turns=max_turns), starter=rng.integers(2, size=n))
    turn = np.where(games.starter == seat, 1, 2) + 2 * rng.integers(max_turns // 2 - 1, size=n)
    histories = []
    for past in (turn - 1).tolist():
        drift = np.linspace(0, 1, max(past, 1))[:past]
        offers = 500 + 500 * drift * rng.random() + rng.uniform(-150, 150, past) * rng.random()
        histories.append(np.where(rng.random(past) < 0.1, np.nan, np.round(offers, int(rng.integers(3)))))
    standing = np.array([past[-1] if len(past) else np.nan for past in histories])
    width = int(turn.max()) - 1
    prices = np.array([np.append(np.full(width - len(past), np.nan), past) for past in histories])
    return SeatView(np.arange(n), SeatGames.of(games, seat), turn, standing, prices), histories


@pytest.mark.parametrize("seat", Seat, ids=lambda seat: seat.label)
@pytest.mark.parametrize("name", [*agents.list_strategies(), "linear", "mixture"])
def test_mixed_turns_are_played_as_single_ones(name, seat):
    several = [agents.make(one) for one in ("boulware_hard", "charging_boul", "tit_for_tat")]
    made = {"linear": Linear(), "mixture": Mixture(several)}
    policy = made.get(name) or agents.make(name)
    view, histories = mixed_view(seat)
    together = act_on_any_turns(policy, view)
    for row in range(len(view)):
        at = np.array([row])
        turn = int(view.turn[row])
        alone = SeatView(at, view.games.take(at), turn, view.standing[at], histories[row][None])
        moves = policy.act(alone)
        assert moves.accept[0] == together.accept[row]
        assert moves.price[0].tobytes() == together.price[row].tobytes()
    assert len(set(together.price.tolist())) > 1 or name == "hardliner", "they differ"
