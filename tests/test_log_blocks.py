"""A log in blocks: every line is in one of them, however they are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.corpus import jsonl, log_blocks


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
