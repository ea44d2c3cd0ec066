"""A folder is replaced whole or not at all, wherever it stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from bargain_env.errors import InputError
from bargain_env.files import replacing_folder

MARK = "mark"


def write(folder, text):
    with replacing_folder(folder, MARK) as temporary:
        (temporary / MARK).write_text(text)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("rename", [1, 2])
def test_an_interrupted_replacement_leaves_the_earlier_version(error, rename, tmp_path, monkeypatch):
    write(tmp_path / "it", "earlier")
    calls, usual = [], Path.replace

    def interrupted(self, target):
        calls.append(self)
        if len(calls) == rename:
            raise error
        return usual(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(error):
        write(tmp_path / "it", "later")
    monkeypatch.undo()
    assert (tmp_path / "it" / MARK).read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["it"]
    write(tmp_path / "it", "later")
    assert (tmp_path / "it" / MARK).read_text() == "later"


def test_a_block_that_fails_changes_nothing(tmp_path):
    write(tmp_path / "it", "earlier")
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "it", MARK):
        raise ZeroDivisionError
    assert (tmp_path / "it" / MARK).read_text() == "earlier"


def test_what_is_not_ours_is_refused(tmp_path):
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="it would be lost"):
        write(tmp_path / "it", "later")
