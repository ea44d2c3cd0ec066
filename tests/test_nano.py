"""The shipped janus-nano: what is in the package, that it is whole, and that its dial turns."""

from __future__ import annotations

import json

import numpy as np
import pytest

import agents
from agents import JanusAgent
from bargain_env import RoutedPolicy, Seat, play, sample
from hyperlora import load_base, load_hyperlora_adapter
from hyperlora.base import nano_folder
from hyperlora.dial import Dial
from hyperlora.prompt import SPECIAL_TOKENS

OPPONENTS = ["boulware_firm", "linear_standard", "boulware_conceding", "tit_for_tat", "split_difference", "fair_slow"]


def test_it_is_small_safe_and_described():
    files = [p for p in nano_folder().rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 8 * 2**20
    assert {p.suffix for p in files} <= {".safetensors", ".json", ".md", ".jinja"}
    assert "Limits" in (nano_folder() / "adapter" / "README.md").read_text()
    config = json.loads((nano_folder() / "adapter" / "adapter_config.json").read_text())
    assert config["base_model"] == "../base"
    assert not [v for v in json.dumps(config).split('"') if v.startswith("/")]


def test_base_is_a_small_qwen2_with_the_markers():
    model, tokenizer = load_base("janus-nano")
    assert model.config.model_type == "qwen2"
    assert sum(p.numel() for p in model.parameters()) <= 1_000_000
    assert all(token in tokenizer.get_vocab() for token in SPECIAL_TOKENS)


def settlements(rho, seat: Seat, **options):
    """Mean achieved ρ and agreement for each requested ρ, over 4 paired games against each opponent."""
    games = sample("paper", 4, seed=123)
    n, k = len(OPPONENTS) * 4, len(rho)
    rows = np.tile(np.repeat(np.arange(4), len(OPPONENTS)), k)
    janus = JanusAgent(load_hyperlora_adapter("janus-nano"), rho=np.repeat(rho, n), **options)
    scripts = [agents.make(name, assumed_zopa_width=500.0) for name in OPPONENTS]
    routed = RoutedPolicy(scripts, np.tile(np.arange(len(OPPONENTS)), 4 * k))
    pair = (janus, routed) if seat == Seat.BUYER else (routed, janus)
    result = play(games.take(rows), *pair)
    achieved = result.rho.reshape(k, n)
    return np.nanmean(achieved, axis=1), result.agreement.reshape(k, n).mean(axis=1)


def test_its_maps_rise_with_the_request():
    dial = Dial.from_config(json.loads((nano_folder() / "adapter" / "adapter_config.json").read_text()))
    assert dial is not None
    assert set(dial.scenarios) == {"paper", "hidden"}
    for scenario in (None, *dial.scenarios):
        for seat in Seat:
            assert (np.diff(dial.of(seat, scenario).internal) > 0).all(), (scenario, seat)


@pytest.mark.parametrize("seat", list(Seat))
def test_the_dial_turns_and_the_base_has_none(seat):
    rho = np.array([0.2, 0.5, 0.8])
    achieved, agreement = settlements(rho, seat)
    assert (np.diff(achieved) > 0.05).all(), achieved
    assert agreement.min() >= 0.8
    blind, _ = settlements(rho, seat, base_only=True)
    assert np.ptp(blind) < np.ptp(achieved) / 3, blind


def test_a_second_game_is_the_same_game():
    first, second = (settlements(np.array([0.3]), Seat.BUYER) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
