"""Names of somebody's own modules and files."""

import sys

import pytest

import experiments
from morph.errors import ImportedError
from morph.imports import find_attribute, is_path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of somebody's own, with modules that nothing else is called like."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = dict(sys.modules)
    (tmp_path / "own_task.py").write_text("import own_helper\nloss = own_helper.LOSS\n")
    (tmp_path / "own_helper.py").write_text("class LOSS:\n    scale = 2\n")
    (tmp_path / "broken_task.py").write_text("import nothing_like_it\n")
    (tmp_path / "raising_task.py").write_text("raise ValueError('first line\\nsecond')\n")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text("loss = 3\n")
    (tmp_path / "experiments" / "__init__.py").write_text("")
    yield tmp_path
    for name in set(sys.modules) - set(known):
        del sys.modules[name]


def test_modules_and_files_are_found_and_imported_once(here, monkeypatch):
    found = find_attribute("own_task:loss")
    assert found.scale == find_attribute("own_task:loss.scale") == 2
    monkeypatch.chdir("/")
    assert find_attribute(f"{here}/own_task.py:loss") is found
    assert find_attribute(f"{here}/experiments/mine.py:loss") == 3
    assert is_path("own_task:loss")
    assert not is_path("cross_entropy")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("own_task", "--loss=own_task names no attribute; write package.module:attribute or path/"),
        ("own_task:los", "own_task has no 'los'; did you mean 'loss'"),
        ("own_taskk:loss", "no module 'own_taskk', neither in the current directory nor installed"),
        ("own_taskk.py:loss", "there is no file own_taskk.py; did you mean 'own_task.py'"),
        (
            "broken_task:loss",
            "importing broken_task fails with ModuleNotFoundError: No module named",
        ),
        ("broken_task.py:loss", "broken_task.py fails with ModuleNotFoundError: No module named"),
        ("raising_task.py:loss", "raising_task.py fails with ValueError: first line$"),
        ("experiments.mine:loss", "a package of Morph's here: name the file, experiments/mine.py:"),
    ],
)
def test_what_cannot_be_imported_is_told_in_one_line(here, target, message):
    assert experiments.__file__  # ours is there already
    with pytest.raises(ImportedError, match=message):
        find_attribute(target, "loss")
