"""`experiments.benchmark feed`: what it measures, and that both sides of a ratio are timed."""

import json

import pytest

from experiments import benchmark, cli
from experiments.speed import feed


def test_the_command(monkeypatch, capsys):
    for name, value in (("GAMES", 20), ("REFERENCE_ROWS", 30), ("BATCHES", 2)):
        monkeypatch.setattr(feed, name, value)
    cli.main(benchmark.Settings, benchmark.run, ["feed", "--seconds", "0.01", "--json"])
    speeds = json.loads(capsys.readouterr().out)["speeds"]
    named = {speed["name"]: speed for speed in speeds}
    compared = [speed for speed in speeds if speed["reference"]]
    assert [speed["unit"] for speed in compared] == ["prompts/s", "prompts/s", "batches/s"]
    for speed in compared:
        assert speed["ratio"] == pytest.approx(speed["rate"] / named[speed["reference"]]["rate"])


def test_batches_that_differ_are_not_compared(monkeypatch, steps):
    tokenizer = feed.build_nano_tokenizer()
    dataset = feed.NegotiationDataset(steps.slice(0, 40), tokenizer)
    right = dataset.batch
    monkeypatch.setattr(dataset, "batch", lambda rows: {**right(rows), "rho": right(rows)["rho"] + 1.0})
    with pytest.raises(RuntimeError, match="differ"):
        feed._batches(dataset, seed=0)
