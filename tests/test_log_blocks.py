"""A log in blocks: every line is in one of them, however they are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.corpus import jsonl, log_blocks
from experiments.match import engines


@given(lines=st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=12),
       ended=st.booleans(), size=st.integers(1, 30))  # fmt: skip
def test_every_line_is_in_one_block(tmp_path_factory, lines, ended, size):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n" * ended)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "BATCH_BYTES", size)
        blocks = log_blocks._blocks(0, path)
    with path.open("rb") as file:
        assert [line for block in blocks for line in block.lines()] == file.readlines()


def test_a_log_that_is_not_there_any_more(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"{}\n")
    (block,) = log_blocks._blocks(0, path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        block.lines()


class OneIsSlow:
    """Workers of whom the first answers only when nobody else is at work."""

    def __init__(self):
        self.busy, self.begun = {}, []

    def ask(self, worker, number):
        self.busy[worker] = number
        self.begun.append(number)

    def answers(self):
        worker = max(self.busy)
        return [(worker, self.busy.pop(worker))]


@pytest.mark.parametrize(("ahead", "furthest"), [(None, 9), (4, 3), (1, 0)])
def test_nobody_runs_far_ahead_of_the_slowest(ahead, furthest):
    crew, seen = OneIsSlow(), []
    for number in engines._drive(crew, 3, range(10), range(10), print, ahead):
        if number == 0:
            seen.append(max(crew.begun))
    assert sorted(crew.begun) == list(range(10))
    assert seen == [furthest]
