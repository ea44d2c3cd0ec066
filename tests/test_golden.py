"""Every observable of one short game for each preset, as text: a change of the rules shows as a diff.

After a change that is meant, write them anew with ``python -m tests.test_golden`` and read the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bargain_env import bargain_v0

FOLDER = Path(__file__).parent / "golden"
AGENTS = ("buyer_0", "seller_0")

# preset: the game, the options, and the actions; 0 accepts, and where nothing may be accepted that wastes the turn
GAMES = {
    "paper": (0, {}, (0, 89, 31, 80, 41, 61)),
    "hidden": (1, {"discount": 0.9, "turn_cost": 0.01, "opponent_weight": -0.5}, (0, 0, 131, 61, 99, 0)),
    "no_deal": (5, {"n_prices": 14}, (8, 1, 9, 0)),
}
LEGEND = (
    "* to move, T terminated, t truncated, D deal; legal: ACCEPT+offers"
    " | seat, to move, maker, clock, limit, standing | 8 turns, newest first, their makers"
)


def transcript(preset: str) -> str:
    """The game as text: for each turn what both seats see and are told, then the move and what it pays."""
    number, options, actions = GAMES[preset]
    env = bargain_v0.raw_env(scenario=preset, max_turns=6, render_mode="ansi", **options)
    env.reset(seed=0)
    for _ in range(number):
        env.reset()
    chosen = "".join(f", {name} {value}" for name, value in options.items())
    scenario = repr(env.scenario).replace(repr(env.scenario.starter), env.scenario.starter.label)
    lines = [f"{preset}: seed 0{chosen}", scenario, LEGEND, *sight(env)]
    for action in actions:
        mover = env.agent_selection
        env.step(action)
        lines.append(f"{mover} plays {action}:{env.render().splitlines()[-2]}")
        lines += sight(env)
    lines.append(env.render().splitlines()[-1])
    return "\n".join(lines) + "\n"


def sight(env) -> list[str]:
    """A line for each seat: flags, mask, info and rewards, then the 22 numbers; signs are + - and . for none."""
    lines = []
    for agent in AGENTS:
        seen, info = env.observe(agent), env.infos[agent]
        numbers, mask = seen["observation"].tolist(), seen["action_mask"]
        assert (info["action_mask"] == mask).all()
        flags = "".join(
            letter if on else "."
            for letter, on in (
                ("*", agent == env.agent_selection),
                ("T", env.terminations[agent]),
                ("t", env.truncations[agent]),
                ("D", info["agreement"]),
            )
        )
        legal = f"mask {mask[0]}+{mask[1:].sum():<3} wasted {info['invalid_moves']}"
        paid = f"paid {env.rewards[agent]:+.4f} owed {env._cumulative_rewards[agent]:+.4f}"
        seat, clock, to_move, limit, standing, maker = numbers[:6]
        head = f"{sign(seat)}{sign(to_move)}{sign(maker)} {clock:+.2f} {limit:+.4f} {standing:+.4f}"
        past = " ".join(f"{price:+.2f}" for price in numbers[6:14])
        lines.append(f"  {agent:8} {flags} {legal} {paid} | {head} | {past} {''.join(map(sign, numbers[14:]))}")
    return lines


def sign(number: float) -> str:
    """``+``, ``-`` or ``.``; anything but 1, -1 and 0 would be a change."""
    return {1.0: "+", -1.0: "-", 0.0: "."}[number]


@pytest.mark.parametrize("preset", GAMES)
def test_golden(preset):
    path = FOLDER / f"{preset}.txt"
    expected, now = path.read_text(encoding="utf-8").splitlines(), transcript(preset).splitlines()
    assert now == expected, f"the game of {path.name} has changed; if that is meant, run python -m tests.test_golden"


@pytest.mark.parametrize("preset", GAMES)
def test_they_can_be_read(preset):
    lines = transcript(preset).splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 160


def test_they_show_every_kind_of_move_and_end():
    text = "".join(map(transcript, GAMES))
    for shown in (
        "wastes the turn",
        "offers",
        "accepts",
        "deal at",
        "impasse",
        " .T.. ",
        " .T.D ",
        "mask 1+14",
        " owed -",
    ):
        assert shown in text, shown


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for preset in GAMES:
        (FOLDER / f"{preset}.txt").write_text(transcript(preset), encoding="utf-8")
