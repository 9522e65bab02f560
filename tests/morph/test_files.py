"""A file is whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from morph import files


def test_a_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    files.write_text(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left .*config\.json"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["config.json"]


def test_files_that_belong_together_come_together_or_not_at_all(tmp_path):
    def write(turn, stop=None):
        with files.together(tmp_path / "run") as aside:
            files.write_text(aside / "a.json", turn)
            (aside / "b").mkdir()
            files.write_text(aside / "b" / turn, turn)
            if stop:
                raise stop

    def there():
        found = {path for path in (tmp_path / "run").rglob("*") if path.is_file()}
        return {str(path.relative_to(tmp_path / "run")): path.read_text() for path in found}

    write("1")
    (tmp_path / "run" / "other").write_text("stays")
    (tmp_path / "run" / ".part").mkdir()  # of one that was killed
    for stop in (OSError(errno.ENOSPC, "full"), KeyboardInterrupt()):
        with pytest.raises(type(stop)):
            write("2", stop)
        assert there() == {"a.json": "1", "b/1": "1", "other": "stays"}
    write("2")
    assert there() == {"a.json": "2", "b/2": "2", "other": "stays"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"a.json", "b", "other"}


def test_a_line_that_cannot_be_appended_names_its_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    files.append_text(path, "1\n")
    files.append_text(path, "2\n")
    assert path.read_text() == "1\n2\n"
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        files.append_text(Path("/dev/full"), "3\n")
