"""What is made of a counterpart's first offers, and what it must not depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bargain_env.errors import InputError
from hyperlora.adapters.offer_embedding import ENTRIES, OfferEmbedding, entries_of, first_offers
from hyperlora.adapters.offer_features import OfferHistory

FIRM = OfferHistory("seller", [1400.0, 1390.0, 1385.0, 1380.0], [300.0, 420.0, 500.0, 610.0], 200.0, 1500.0)
SOFT = OfferHistory("seller", [1400.0, 1150.0, 900.0, 700.0], [300.0, 420.0, 500.0, 610.0], 200.0, 1500.0)
OPENER = OfferHistory("seller", [1400.0, 1390.0, 1385.0], [300.0, 420.0], 200.0, 1500.0)
FITTED = OfferEmbedding.fitted([first_offers(game, n) for game in (FIRM, SOFT, OPENER) for n in (1, 2, 4)])


@pytest.mark.parametrize(
    ("history", "count", "offers", "replies"),
    [(FIRM, 2, 2, 2), (FIRM, 9, 4, 4), (OPENER, 1, 1, 0), (OPENER, 2, 2, 1), (OPENER, 5, 3, 2)],
)
def test_a_prefix_holds_what_was_said_before_its_last_offer(history, count, offers, replies):
    cut = first_offers(history, count)
    assert cut.offers == history.offers[:offers]
    assert cut.replies == history.replies[:replies]


def test_what_comes_later_changes_nothing():
    later = replace(SOFT, offers=[*SOFT.offers[:2], 1.0, 2.0], replies=[*SOFT.replies[:2], 3.0, 4.0])
    one, two = (FITTED.embed("seller", [first_offers(game, 2)]) for game in (SOFT, later))
    assert torch.equal(one, two)
    assert not torch.equal(one, FITTED.embed("seller", [first_offers(later, 3)]))


def test_styles_differ_and_a_scale_of_prices_does_not():
    firm, soft = (FITTED.embed("seller", [game]) for game in (FIRM, SOFT))
    assert firm.shape == (FITTED.dim,)
    assert firm.dtype == torch.float32
    assert (firm - soft).abs().max() > 0.5
    wide = OfferHistory("seller", [10 * x for x in FIRM.offers], [10 * x for x in FIRM.replies], 2000.0, 15000.0)
    np.testing.assert_allclose(FITTED.embed("seller", [wide]), firm, atol=1e-5)
    mirrored = OfferHistory("buyer", [1700 - x for x in FIRM.offers], [1700 - x for x in FIRM.replies], 200.0, 1500.0)
    seen = FITTED.embed("buyer", [mirrored])
    assert torch.isclose(seen[:-1], firm[:-1], atol=1e-5).float().mean() > 0.9  # all but round prices
    assert seen[-1] == -firm[-1]


def test_several_games_are_a_mean_in_any_order_and_nothing_seen_is_the_average_counterpart():
    both, turned = FITTED.embed("seller", [FIRM, SOFT]), FITTED.embed("seller", [SOFT, FIRM])
    torch.testing.assert_close(both, turned)
    assert both[ENTRIES : 2 * ENTRIES].any()
    nothing = FITTED.embed("buyer", [])
    assert not nothing[:-1].any()
    assert nothing[-1] == 1.0
    assert torch.isfinite(FITTED.embed("seller", [replace(SOFT, offers=[1e9], replies=[])])).all()


def test_normalised_over_training_games():
    histories = [FIRM, SOFT, OPENER]
    fitted = OfferEmbedding.fitted(histories)
    scaled = np.stack([(entries_of(game) - fitted.mean) / fitted.deviation for game in histories])
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-9)
    assert set(np.round(scaled.std(axis=0), 6)) <= {0.0, 1.0}
    again = OfferEmbedding.from_config(fitted.as_config())
    assert torch.equal(again.embed("seller", [SOFT]), fitted.embed("seller", [SOFT]))


@pytest.mark.parametrize(
    ("work", "match"),
    [
        (lambda: FITTED.embed("judge", []), "neither buyer nor seller"),
        (lambda: FITTED.embed("buyer", [FIRM]), "other seat"),
        (lambda: first_offers(FIRM, 0), "at least 1"),
        (lambda: OfferEmbedding.fitted([]), "no game"),
        (lambda: OfferEmbedding.from_config(None), "no offer embedding"),
        (lambda: OfferEmbedding.from_config({"mean": [0.0], "deviation": [1.0]}), "no offer embedding"),
        (lambda: OfferEmbedding.from_config({"mean": [0.0] * ENTRIES, "deviation": [0.0] * ENTRIES}), "not finite"),
    ],
)
def test_what_cannot_be_embedded_is_refused(work, match):
    with pytest.raises(InputError, match=match):
        work()
