"""Texts: where they are found, what is kept apart, and pieces of them."""

import numpy as np
import pytest

from experiments import texts
from experiments.texts import TextsNotFoundError, fortunes, pieces
from morph.errors import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MORPH_DATA_DIR", raising=False)
    monkeypatch.setattr(texts, "INSTALLED", str(tmp_path / "none"))
    (tmp_path / "fortunes").mkdir()
    for name in ("literature", "wisdom", "art", "art.dat", "perl"):
        (tmp_path / "fortunes" / name).write_text(f"One {name}.\n%\nTwo.\n%\n")
    return str(tmp_path)


def test_what_is_measured_on_is_kept_apart(folder, monkeypatch):
    assert fortunes(data_dir=folder) == ["One art.", "Two."]
    monkeypatch.setenv("MORPH_DATA_DIR", folder)
    assert fortunes(["wisdom", "literature"])[::2] == ["One wisdom.", "One literature."]


def test_absent_texts_name_the_package(folder):
    with pytest.raises(TextsNotFoundError, match="Debian package fortunes"):
        fortunes(data_dir=folder + "/elsewhere")


def test_pieces_are_whole_and_enough():
    np.testing.assert_array_equal(pieces(np.arange(7), 3, 2), [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(DataError, match="too short: 7 tokens, of which 3 pieces of 3"):
        pieces(np.arange(7), 3, 3)
