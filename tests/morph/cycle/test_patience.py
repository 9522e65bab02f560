"""Cycles that bring nothing are told from those that do."""

import pytest

from morph.cycle.patience import KEPT, best_of, copy_kept, is_over


def test_the_first_of_equals_is_the_best():
    assert best_of([0.5, 0.7, 0.6, 0.7]) == 1


@pytest.mark.parametrize(
    ("values", "patience", "over"),
    [
        ([], 2, False),
        ([0.5, 0.6], 1, False),
        ([0.6, 0.6], 1, True),
        ([0.6, 0.5], 2, False),
        ([0.6, 0.5, 0.4], 2, True),
        ([0.6, 0.5, 0.4], 0, False),
    ],
)
def test_it_is_over_when_the_last_ones_brought_nothing(values, patience, over):
    assert is_over(values, patience) == over


def test_what_is_kept_replaces_what_was_there(tmp_path):
    for turn in "12":
        for name in KEPT:
            if name.endswith(".json"):
                (tmp_path / name).write_text(turn)
            else:
                (tmp_path / name).mkdir(exist_ok=True)
                (tmp_path / name / f"only in {turn}").touch()
                (tmp_path / name / f"only in {int(turn) - 1}").unlink(missing_ok=True)
        copy_kept(tmp_path, tmp_path / "best")
    assert (tmp_path / "best" / "shrunk.json").read_text() == "2"
    assert [path.name for path in (tmp_path / "best" / "variables").iterdir()] == ["only in 2"]
