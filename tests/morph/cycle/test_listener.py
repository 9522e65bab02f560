"""Nobody need listen."""

import io
import sys

import numpy as np

from morph.cycle.listener import Listener, Progress, Silence


def test_silence_hears_all_that_a_listener_hears():
    heard = {name for name in vars(Listener) if not name.startswith("_")}
    assert heard == {"seed", "phase", "update"} == {n for n in vars(Silence) if n[0] != "_"}
    listener: Listener = Silence()
    assert listener.seed({"a": 5}) is None
    assert listener.phase("shrink", 80) is None
    assert listener.update(3, loss=0.5) is None


def told(capsys, terminal, monkeypatch):
    """What a run of two phases says."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    seconds = iter(range(100))
    with Progress(clock=lambda: float(next(seconds)), last="all done") as progress:
        progress.seed({"a": 5})
        progress.phase("seed", 20)
        progress.update(10, loss=np.float32(0.51234), widths={"a": 3})
        progress.update(20, loss=0.25)
        progress.phase("shrink", 7)
        progress.update(7, cost_ratio=0.5)
    return capsys.readouterr().err


def test_elsewhere_there_is_one_line_for_each_phase(capsys, monkeypatch):
    *lines, last = told(capsys, False, monkeypatch).splitlines()
    assert last == "all done"
    assert [line.rsplit(", ", 1)[0] for line in lines] == [
        "seed 20/20, loss 0.25",
        "shrink 7/7, cost_ratio 0.5",
    ]
    assert all(line.endswith(" s") for line in lines)


def test_on_a_terminal_a_line_moves(capsys, monkeypatch):
    text = told(capsys, True, monkeypatch)
    assert text.count("\n") == 3
    assert [part.split(",")[0] for part in text.split("\r\x1b[2K")[1:4]] == [
        "seed 0/20",
        "seed 10/20",
        "seed 20/20",
    ]


def test_a_stream_that_is_closed_ends_nothing(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with Progress(last="all done") as progress:
        progress.phase("seed", 3)
        progress.update(3, loss=1.0)
