"""The page of a data card: it stands alone, escapes what it quotes, and is silent and whole in a browser."""

import json
import re

import chromium
import pytest

from experiments import collect, inspect
from experiments.inspecting import html


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="module")
def card(folder):
    """Of games of ``paper``, which has leaks to show; its page is in the same folder."""
    collect.run(collect.Settings(episodes=600, seed=4, scenario="paper", out=folder, quiet=True))
    return inspect.run(inspect.Settings(data=folder, quiet=True))


def test_paper_is_shown_to_leak(card, folder):
    leaks = [check for check in card["checks"] if check["verdict"] == "leak"]
    assert [check["name"] for check in leaks] == ["reservation_turn_1_paper_buyer", "reservation_turn_1_paper_seller"]
    page = (folder / "card.html").read_text(encoding="utf-8")
    assert html.said(card) in page.replace("&#x27;", "'")
    assert html.said(card).endswith(f"2 of {len(card['checks'])} checks found a leak.")
    assert page.count('class="badge leak"') == 3
    assert all(check["action"] in page for check in leaks)


def test_the_page_stands_alone_and_escapes_names(card):
    strange = json.loads(json.dumps(card))
    strange["data"] = "<script>x</script>"
    strange["strategies"]["names"][0]["strategy"] = "<img src=x>"
    page = html.render(strange)
    assert "<script>x" not in page
    assert "<img" not in page
    assert "&lt;script&gt;x" in page
    assert "&lt;img" in page
    assert not re.search(r"(?:src|href)=[\"'](?!#|data:)", page)
    assert "default-src 'none'" in page
    assert page.count('role="img"') == page.count("<svg") >= 6
    for check in card["checks"]:
        assert check["name"]
        assert check["title"] in page.replace("&#x27;", "'")


@pytest.mark.skipif(chromium.found() is None, reason="no Chromium here")
def test_the_page_in_a_browser(card, folder, tmp_path):
    page = folder / "card.html"
    with chromium.Browser(tmp_path / "profile") as browser:
        grounds = set()
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                browser.open(page, width, prefers_color_scheme=scheme)
                assert browser.value("innerWidth") == width
                assert browser.value("document.scrollingElement.scrollWidth") <= width
                assert browser.complaints() == []
                assert browser.requests() == [page.as_uri()]
                grounds.add(browser.value("getComputedStyle(document.querySelector('.badge.ok')).color"))
        assert len(grounds) == 2
