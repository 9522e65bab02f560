"""Texts: where they are found, what is kept apart, and pieces of them."""

import gzip

import numpy as np
import pytest

from experiments import texts
from experiments.dataset_files import DatasetError
from experiments.texts import Entry, TextsNotFoundError, dictionary, fortunes, pieces
from morph.errors import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MORPH_DATA_DIR", raising=False)
    monkeypatch.setattr(texts, "INSTALLED", dict.fromkeys(texts.INSTALLED, str(tmp_path / "none")))
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
    with pytest.raises(TextsNotFoundError, match="Debian package dict-gcide"):
        dictionary(data_dir=folder)


WEBSTER = r"""
Abaciscus \Ab`a*cis"cus\ ([a^]b`[.a]*s[i^]s"k[u^]s), n. [Gr.
   'abaki`skos, dim of 'a`bax. See {Abacus}.] (Arch.)
   One of the tiles or squares of a tessellated pavement; an
   abaculus.
   [1913 Webster]

Aback \A*back"\ ([.a]*b[a^]k"), adv. [Pref. a- + back.]
   1. Toward the back or rear; backward. "Therewith aback she
      started." --Chaucer.
      [1913 Webster]

   3. (Naut.) Backward against the {mast}; -- said of the sails
      when pressed by the wind. --Totten.
      [1913 Webster]

   4. Too short.

   A line without a word before it.
"""


def test_a_dictionary_gives_the_first_sentence_of_each_sense(tmp_path):
    (tmp_path / "dictd").mkdir()
    path = tmp_path / "dictd" / "gcide.dict.dz"
    path.write_bytes(gzip.compress(WEBSTER.lstrip().encode()))
    assert dictionary(str(tmp_path)) == [
        Entry("Abaciscus", "One of the tiles or squares of a tessellated pavement; an abaculus."),
        Entry("Aback", "Toward the back or rear; backward."),
        Entry("Aback", "Backward against the mast."),
        Entry("Aback", "A line without a word before it."),
    ]
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DatasetError, match="install the Debian package dict-gcide again"):
        dictionary(str(tmp_path))


def test_pieces_are_whole_and_enough():
    np.testing.assert_array_equal(pieces(np.arange(7), 3, 2), [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(DataError, match="too short: 7 tokens, of which 3 pieces of 3"):
        pieces(np.arange(7), 3, 3)


def test_rows_are_spread_over_all_of_them():
    rows = np.arange(7)[:, None]
    assert texts.spread(rows, 3)[:, 0].tolist() == [0, 2, 4]
    assert texts.spread(rows, 7).tolist() == rows.tolist()
