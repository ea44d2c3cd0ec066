"""A folder is replaced whole or not at all, wherever it stops."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bargain_env.errors import InputError
from bargain_env.files import locked, replacing_folder

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


def test_one_process_at_a_time_holds_a_lock(tmp_path):
    path = tmp_path / "held"
    script = """
import sys
from pathlib import Path
from bargain_env.errors import InputError
from bargain_env.files import locked
try:
    with locked(Path(sys.argv[1]), "in use"):
        print("free")
except InputError as error:
    print(error)
"""

    def other():
        return subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
        ).stdout

    assert other() == "free\n"
    with locked(path, "here"):
        assert other() == "in use\n"
    assert other() == "free\n"
    assert list(tmp_path.iterdir()) == []
