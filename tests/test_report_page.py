"""The report in a browser: silent, offline, with every chart on it, at the width of a desk and of a phone."""

import chromium
import numpy as np
import pyarrow as pa
import pytest
from tournament_players import Taker, dial

import agents
from agents import registry
from bargain_env import PRESETS, Seat
from experiments import report
from experiments.match import arena, results
from experiments.match.contestants import script
from experiments.reporting import landmarks, summary

pytestmark = pytest.mark.skipif(
    chromium.found() is None,
    reason="no Chromium here: the report is opened where one is installed (Debian: apt install chromium)",
)

BOXES = """(() => [...document.querySelectorAll("[data-plot]")].map((plot) => {
  const box = plot.getBoundingClientRect();
  const marks = plot.querySelectorAll("svg path, svg use, td").length;
  return [plot.dataset.plot, box.width, box.height, marks];
}))()"""
LETTERS = """(() => Math.min(...[...document.querySelectorAll("figure svg text")].map((text) => {
  const drawing = text.ownerSVGElement, scale = drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width;
  return scale > 0 ? scale * parseFloat(getComputedStyle(text).fontSize) : Infinity;
})))()"""
UNFOLD = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A report with everything on it, and one with a page's faults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_REGISTRY", {})
        agents.register("easy", Taker)
        agents.register("picky", Taker, defaults={"picky": 1.0})
        players = [dial(), dial("other"), dial("shuffled", shuffled=True), script("easy"), script("picky")]
        plan = arena.Plan(
            ("easy", "picky"), arena.same_grid((0.0, 0.2, 0.5, 0.8, 1.0)), 6, tuple(Seat), PRESETS["paper"]
        )
        episodes = arena.run_tournament(players, plan)
        marks = summary.clean({**landmarks.landmarks(plan), "scripts": {"games": 6, "rows": []}})
    splits = pa.array(np.where(np.array(episodes["opponent"].to_pylist()) == "easy", "train", "held_out"))
    place = episodes.schema.get_field_index("opponent_split")
    episodes = episodes.set_column(place, results.SCHEMA.field("opponent_split"), splits)
    settings = {
        "agents": [p.label for p in players],
        "controls": ["shuffled"],
        "rho": [0, 0.2, 0.5, 0.8, 1],
        "games": 6,
        "seed": 0,
    }
    settings |= {"opponents": list(plan.opponents), "seats": ["buyer", "seller"], "scenario": "paper", "max_turns": 20}
    settings |= {"arms": {"dial": "both", "other": "text", "shuffled": "shuffled"}}
    found = summary.summarise(episodes, settings) | {"landmarks": marks, "versions": {"python": "3"}}
    folder = tmp_path_factory.mktemp("pages")
    text = report.render(found, episodes)
    (folder / "report.html").write_text(text, encoding="utf-8")
    faulty = text.replace("default-src 'none'; ", "").replace("img-src data:", "connect-src *")
    faulty = faulty.replace(
        "</main>", "<script>fetch('http://127.0.0.1:9/x').catch(() => {}); nowhere();</script></main>"
    )
    (folder / "faulty.html").write_text(faulty, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_faults_would_be_seen(pages, browser):
    browser.open(pages / "faulty.html", 1280)
    browser.value("new Promise((done) => setTimeout(done, 50))")
    assert any("127.0.0.1" in url for url in browser.requests())
    assert any("nowhere" in text or "Uncaught" in text for text in browser.complaints())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_silent_offline_and_whole(pages, browser, width, scheme):
    browser.open(pages / "report.html", width, prefers_color_scheme=scheme)
    assert browser.value("innerWidth") == width
    browser.value(UNFOLD)
    boxes = browser.value(BOXES)
    text = (pages / "report.html").read_text(encoding="utf-8")
    assert len(boxes) == text.count("data-plot=") > 15
    for name, box_width, box_height, marks in boxes:
        assert box_width > 200, name
        assert box_height > 100, name
        assert marks > 5, name
    assert browser.value("document.scrollingElement.scrollWidth") <= width  # tables scroll, the page does not
    assert browser.complaints() == []
    assert browser.requests() == [(pages / "report.html").as_uri()]


@pytest.mark.parametrize(("width", "least"), [(1280, 8), (390, 6)])
def test_letters_in_charts_can_be_read(pages, browser, width, least):
    browser.open(pages / "report.html", width)
    assert browser.value(LETTERS) >= least


def test_dark_is_dark_and_paper_is_white(pages, browser):
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.open(pages / "report.html", 1280, prefers_color_scheme="light")
    light = browser.value(ground)
    browser.open(pages / "report.html", 1280, prefers_color_scheme="dark")
    assert browser.value(ground) != light
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.value(ground) == "rgb(255, 255, 255)"
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.value("getComputedStyle(document.querySelector('#picked')).display") == "none"
    browser.call("Emulation.setEmulatedMedia", media="")


def test_any_cell_can_be_picked(pages, browser):
    browser.open(pages / "report.html", 1280)
    shown = "document.getElementById('picked').innerText"
    first = browser.value(shown)
    assert first.count("python -m experiments.replay . ") == 3
    for field, wanted in (("agent", "shuffled"), ("seat", "seller"), ("rho", "0.80"), ("opponent", "picky")):
        browser.value(
            f"(() => {{ const pick = document.getElementById('pick-{field}'); pick.value = '{wanted}'; "
            "pick.dispatchEvent(new Event('change')); })()"
        )
    assert "'shuffled|seller|0.80|picky|" in browser.value(shown)
    assert "'shuffled|seller|0.80|picky|" not in first
    browser.value("document.querySelector('#picked details').open = true")
    assert "offers" in browser.value("document.querySelector('#picked ol').innerText")
    assert browser.complaints() == []
