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
# Where the tests run in the background of a shell, they, and what they start, ignore the signal.
LISTENS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
SLEEPS = "import time\nprint('ready', flush=True)\ntime.sleep(30)\n"
RUNS = "import sys, time\nfrom experiments.console.stop import *\n"
PLACES = {
    "import": SLEEPS,
    "destructor": RUNS + "class A:\n    def __del__(self):\n        print('ready', flush=True)\n"
    "        time.sleep(30)\ntry:\n    with interruptible():\n        a = A()\n        del a\n"
    "        time.sleep(30)\nexcept KeyboardInterrupt:\n    stopped(to_go_on('again'))\n",
    "exit": RUNS + "import atexit\n"
    "atexit.register(lambda: (print('ready', flush=True), time.sleep(30)))\n"
    "with interruptible():\n    pass\n",
    "second": RUNS + "import atexit\n"
    "atexit.register(lambda: (print('ready', flush=True), time.sleep(30)))\n"
    "with interruptible():\n    stopped(to_go_on('again'))\n",
}


@pytest.mark.parametrize("place", PLACES)
def test_one_line_and_130(place, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/__init__.py").write_text(PACKAGE.format(root=str(ROOT)))
    (tmp_path / "own/main.py").write_text(PLACES[place])
    with subprocess.Popen(
        [sys.executable, "-c", LISTENS, sys.executable, "-m", "own.main", "--a=b c"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGINT)
        told = process.stderr.read()
    goes_on = "again" if "again" in PLACES[place] else "python -m own.main '--a=b c'"
    assert told == f"\nstopped; what was finished stays. To go on: {goes_on}\n"
    # The second Ctrl-C ends it by the signal itself: the shell calls that 130, too.
    assert process.returncode == (-signal.SIGINT if place == "second" else 130)


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


def test_what_a_module_in_c_makes_of_it_is_still_an_interruption(capsys, keeps_signals):
    with pytest.raises(SystemExit) as end, command.ending("again"):
        raise ImportError("initialization failed") from KeyboardInterrupt()
    assert end.value.code == 130
    assert capsys.readouterr().err.count("\n") == 2


def test_other_errors_are_raised():
    with pytest.raises(ZeroDivisionError), command.ending("again"):
        _ = 1 / 0
    round_about = ValueError()
    round_about.__context__ = ValueError()
    round_about.__context__.__context__ = round_about
    assert not stop.is_interruption(round_about)


@pytest.mark.parametrize(
    ("argv", "handler", "taken"),
    [
        (["-m"], signal.default_int_handler, True),
        (["-m"], signal.SIG_IGN, False),  # in the background of a shell
        (["pytest"], signal.default_int_handler, False),
    ],
)
def test_only_a_command_that_is_being_started_takes_the_signal(monkeypatch, argv, handler, taken):
    asked = []
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(stop.signal, "getsignal", lambda number: handler)
    monkeypatch.setattr(stop.signal, "signal", lambda *args: asked.append(args))
    stop.from_the_first_import()
    assert bool(asked) == taken
