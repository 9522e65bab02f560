"""What is printed never ends what prints: a closed pipe, a full disk, a terminal without UTF-8."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.console.display import Display, figure_table
from experiments.console.lasting import Lasting, lasting, lasting_output
from experiments.console.terminal import terminal

ROOT = Path(__file__).parents[3]
PRINTS = """
import sys
from experiments.console.lasting import lasting_output
with lasting_output():
    for _ in range(3):
        print("λ" * 3000, flush=True)
    {end}
"""


class Full(io.StringIO):
    """A file on a full disk."""

    full = True

    def write(self, text):
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)

    def flush(self):
        self.write("")


def test_what_cannot_be_written_is_left_out_and_the_next_line_is_tried_again():
    stream = Full()
    out = Lasting(stream)
    print("lost", file=out, flush=True)
    assert out.failure.errno == 28
    stream.full = False
    print("told", file=out, flush=True)
    assert stream.getvalue() == "told\n"


def test_what_the_encoding_lacks_is_a_question_mark():
    raw = io.BytesIO()
    out = Lasting(io.TextIOWrapper(raw, encoding="ascii"))
    print("λ \ud800 a", file=out, flush=True)
    assert raw.getvalue() == b"? ? a\n"


def test_a_closed_stream_and_none():
    closed = io.StringIO()
    closed.close()
    print("lost", file=lasting(closed), flush=True)
    assert lasting(None) is None
    assert lasting(once := lasting(io.StringIO())) is once


@pytest.mark.parametrize("file", [Full, lambda: io.TextIOWrapper(io.BytesIO(), "ascii")])
@pytest.mark.parametrize("live", [False, True])
def test_a_display_outlasts_its_terminal(file, live):
    console = terminal(file=file(), force_terminal=live)
    with Display(console=console, line_interval_s=0.0, live_interval_s=0.0) as shown:
        shown.phase("λ", total_steps=2)
        shown.update(1, strength=0.5, widths={"a": 3})
        shown.phase("last", total_steps=2)
        shown.update(2)
        shown.print(figure_table("t", ["λ"], [("▁",)]))


def test_what_is_missing_is_told_once_on_standard_error(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Full())
    with lasting_output():
        print("a")
        print("b")
    told = capsys.readouterr().err
    assert told == "some lines could not be printed: [Errno 28] No space left on device\n"
    assert isinstance(sys.stdout, Full)


@pytest.mark.parametrize(
    ("end", "status", "told"),
    [("pass", 0, ""), ("print('error: no', file=sys.stderr), sys.exit(2)", 2, "error: no\n")],
    ids=["done", "refused"],
)
@pytest.mark.parametrize("where", ["/dev/full", "closed pipe", "ascii", "none"])
def test_the_exit_status_does_not_depend_on_who_listens(where, end, status, told):
    options = {"stderr": subprocess.PIPE, "cwd": ROOT}
    options["env"] = {**os.environ, "PYTHONIOENCODING": "ascii" if where == "ascii" else "utf-8"}
    command = [sys.executable, "-c", PRINTS.format(end=end)]
    if where == "none":
        command = ["sh", "-c", 'exec "$0" "$@" >&-', *command]
    with open("/dev/full", "w") as full:
        options["stdout"] = full if where == "/dev/full" else subprocess.PIPE
        with subprocess.Popen(command, **options) as process:
            if where == "closed pipe":
                process.stdout.close()
            found = process.stderr.read().decode()
    missing = "some lines could not be printed: [Errno 28] No space left on device\n"
    assert (process.returncode, found) == (status, told + missing * (where == "/dev/full"))
