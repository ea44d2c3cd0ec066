"""Randomness: the published Philox vectors, purity, and that different places draw different numbers."""

import numpy as np
import pytest

from bargain_env import rng
from bargain_env.rng import Stream

PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)

# Random123 1.14, tests/kat_vectors, philox4x32 10
KNOWN = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (PI, (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def philox(counters, key):
    """Rows of words in, rows of words out."""
    words = rng.philox(tuple(np.array(counters, dtype=np.uint64).T), tuple(np.asarray(k, dtype=np.uint64) for k in key))
    return np.stack(words, axis=1).tolist()


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_published_words(counter, key, words):
    assert " ".join(f"{word:08x}" for word in philox([counter], key)[0]) == words


def test_philox_rows_do_not_touch_each_other():
    counters = [counter for counter, _, _ in KNOWN]
    assert philox(counters, (7, 9)) == [philox([counter], (7, 9))[0] for counter in counters]


def test_philox_takes_a_key_for_each_row():
    counters, keys = [counter for counter, _, _ in KNOWN], [key for _, key, _ in KNOWN]
    assert philox(counters, np.array(keys).T) == [philox([c], k)[0] for c, k in zip(counters, keys, strict=True)]


def test_a_number_depends_on_its_place_only():
    ids, seeds = np.arange(100), np.arange(100) % 3
    everything = rng.uniform(seeds, ids, seat=1, turn=4, n=5)
    order = np.random.default_rng(0).permutation(100)
    assert (rng.uniform(seeds[order], ids[order], seat=1, turn=4, n=5) == everything[order]).all()
    alone = [rng.uniform(seeds[i], [i], seat=1, turn=4, n=5)[0] for i in range(100)]
    assert (np.array(alone) == everything).all()
    assert (rng.uniform(seeds, ids, seat=1, turn=4, n=2) == everything[:, :2]).all(), "asking for more keeps the first"


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"seed": 1 << 40},
        {"seat": 1},
        {"turn": 2},
        {"turn": 1 << 23},
        {"stream": Stream.SPLIT},
        {"episode": np.arange(1, 1001)},
        {"episode": np.arange(1000) + (1 << 32)},
    ],
    ids=str,
)
def test_different_places_draw_unrelated_numbers(other):
    place = {"seed": 0, "episode": np.arange(1000), "seat": 0, "turn": 1, "stream": Stream.POLICY}
    a, b = rng.uniform(**place)[:, 0], rng.uniform(**{**place, **other})[:, 0]
    assert (a != b).all()
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.12


def test_uniform_moments():
    u = rng.uniform(5, np.arange(20_000), n=3)
    assert u.min() >= 0
    assert u.max() < 1
    assert u.mean() == pytest.approx(1 / 2, abs=0.005)
    assert u.var() == pytest.approx(1 / 12, abs=0.002)
    deciles = np.histogram(u, bins=10, range=(0, 1))[0] / u.size
    assert np.abs(deciles - 0.1).max() < 0.005
    assert np.abs(np.corrcoef(u.T) - np.eye(3)).max() < 0.03, "columns are unrelated"


def test_uniform_has_53_bits():
    scaled = rng.uniform(1, np.arange(1000))[:, 0] * 2.0**53
    assert (scaled == np.rint(scaled)).all()
    assert (scaled.astype(np.uint64) % 2).mean() == pytest.approx(0.5, abs=0.06)


def test_normal_moments():
    z = rng.normal(0, np.arange(20_000), stream=Stream.SCENARIO)
    assert np.isfinite(z).all()
    assert z.mean() == pytest.approx(0, abs=0.03)
    assert z.std() == pytest.approx(1, abs=0.02)
    assert np.mean(np.abs(z) < 1.96) == pytest.approx(0.95, abs=0.01)
