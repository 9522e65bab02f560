"""What is shown while nothing can be counted: a line that goes away, and nothing in a log."""

import io

import pytest
from rich.console import Console

from experiments.console.waiting import Waiting, waiting


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_what_is_done(terminal):
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=terminal, _environ={})
    with waiting(console, "export", "writing and checking onnx"):
        console.print("meanwhile")
    text = out.getvalue()
    assert ("writing and checking onnx, 0 s" in text) == terminal
    assert "meanwhile" in text


def test_the_time_that_passed_is_told():
    out = io.StringIO()
    line = Waiting(name="shrink", what="compiling", since_s=2.0, clock=lambda: 9.4)
    Console(file=out, width=80, _environ={}).print(line)
    assert out.getvalue() == "shrink  compiling, 7 s\n"
