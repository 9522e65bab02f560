"""Runs side by side: what differs, what came out, and one entry per configuration."""

import pytest

from experiments import compare
from experiments.report import read_run


def entries(*places):
    return compare.entries_of([read_run(place) for place in places])


def test_seeds_of_one_configuration_are_one_entry(make_run):
    places = [make_run(f"s{k}", accuracy=0.8 + 0.1 * k, seed=k) for k in (0, 1)]
    other = make_run("other", penalty="gamma")
    first, second = entries(*places, other)
    assert [len(first.runs), len(second.runs)] == [2, 1]
    (point,) = first.points()
    assert (point.accuracy, point.runs) == (pytest.approx(0.85), 2)
    assert point.spread == pytest.approx(0.1 / 2**0.5)
    assert compare.differences([first, second]) == [("penalty", "–", "gamma")]


def test_checksums_are_cut(make_run):
    found = entries(make_run("a", data_fingerprint="6b1ac39c73922a4b0c"), make_run("b"))
    shown = {name: values for name, *values in compare.differences(found)}
    assert shown["data_fingerprint"][0] == "6b1ac39c7392…"


def test_tables_have_both_runs_side_by_side(make_run, capsys, tmp_path):
    a, b = make_run("a", budget=0.5), make_run("b", budget=0.25, accuracy=0.7)
    page, picture = tmp_path / "c.html", tmp_path / "c.png"
    compare.main(["compare", str(a), str(b), f"--output={page}", f"--output={picture}"])
    lines = [
        " ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.split("\n")
    ]
    for line in ("budget 0.5 0.25", "accuracy 90.00 % 70.00 %", "Dense_0 15 10 10"):
        assert line in lines
    assert "Dense_1" in page.read_text()
    assert picture.stat().st_size > 5000


def test_a_run_that_is_not_finished_is_shown_as_such(make_run):
    (entry,) = entries(make_run("early", finished=False))
    assert entry.state == "not finished in 'shrink' at step 5"
    (sheet,) = compare.sheets_of([entry])
    assert ("accuracy", "–") in sheet.rows


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to compare"),
        (["nowhere"], "is not a directory"),
        (["--output=c.gif", "nowhere"], "ending must be one of .html, .png"),
        (["--outputs=c.png"], "output"),
    ],
)
def test_nonsense_is_refused(arguments, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        compare.main(["compare", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error
