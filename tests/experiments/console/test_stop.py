"""Ctrl-C ends every command with one line and 130, wherever it is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.console import command, stop
from morph.errors import Interrupted

ROOT = Path(__file__).parents[3]
# A package of commands that starts as ours does; what it does when it is loaded is to be filled in.
PACKAGE = """
import sys
sys.path.insert(0, {root!r})
from experiments.console.stop import from_the_first_import
from_the_first_import()
"""
SLEEPS = "import time\nprint('ready', flush=True)\ntime.sleep(60)\n"
PLACES = {
    "import": SLEEPS,
    "destructor": "class A:\n    def __del__(self):\n        print('ready', flush=True)\n"
    "        import time\n        time.sleep(60)\na = A()\ndel a\n"
    "import time\ntime.sleep(60)\n",
    "exit": "import atexit, sys, time\n"
    "from experiments.console.stop import stopped, to_go_on\n"
    "atexit.register(lambda: (print('ready', flush=True), time.sleep(60)))\n"
    "stopped(to_go_on('again'))\n",
}


@pytest.mark.parametrize("place", PLACES)
def test_one_line_and_130(place, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/__init__.py").write_text(PACKAGE.format(root=str(ROOT)))
    (tmp_path / "own/main.py").write_text(PLACES[place])
    with subprocess.Popen(
        [sys.executable, "-m", "own.main", "--a=b c"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGINT)
        told = process.stderr.read()
    goes_on = "again" if place == "exit" else "python -m own.main '--a=b c'"
    assert told == f"\nstopped; what was finished stays. To go on: {goes_on}\n"
    # At the exit a second Ctrl-C ends it at once: the shell calls that 130, too.
    assert process.returncode == (-signal.SIGINT if place == "exit" else 130)


@pytest.fixture
def keeps_signals(monkeypatch):
    monkeypatch.setattr(stop.signal, "signal", lambda *args: None)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (KeyboardInterrupt(), "stopped; what was finished stays. To go on: again \\x1b"),
        (Interrupted("stopped at step 3"), "stopped at step 3. To resume: again \\x1b"),
    ],
)
def test_a_command_says_how_to_go_on(raised, told, capsys, keeps_signals):
    with pytest.raises(SystemExit) as end, command.ending("again \x1b"):
        raise raised
    assert end.value.code == 130
    assert capsys.readouterr().err == f"\n{told}\n"


def test_other_errors_are_shown_whole(capsys):
    try:
        raise RuntimeError("a bug")
    except RuntimeError as error:
        stop._uncaught(RuntimeError, error, error.__traceback__)
    assert "Traceback" in capsys.readouterr().err


def test_only_a_command_that_is_being_started_gets_hooks(monkeypatch):
    before = sys.excepthook, sys.unraisablehook
    stop.from_the_first_import()
    assert (sys.excepthook, sys.unraisablehook) == before
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(sys, "argv", ["-m"])
    stop.from_the_first_import()
    assert sys.excepthook is stop._uncaught
