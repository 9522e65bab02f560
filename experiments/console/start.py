"""What is answered before a command is loaded: its help, and flags that cannot be taken.

It loads nothing but the standard library, unless a command is being started.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def answer() -> None:
    """Answers `python -m experiments.NAME --help` before the module NAME is loaded."""
    place, _, name = started(sys.argv, sys.orig_argv).rpartition(".")
    if place != "experiments":
        return
    commands: Any = importlib.import_module("experiments.commands")
    if name in (*commands.COMMANDS, *commands.UNLISTED):
        commands.answer(name, [name, *sys.argv[1:]])


def started(argv: list[str], line: list[str]) -> str:
    """The module that Python looks for because of `-m`; empty if it looks for none.

    Args:
        argv: the program's arguments; while Python looks for a module they begin with `-m`.
        line: the whole command line.

    Example:
        >>> started(["-m", "--help"], ["python", "-P", "-m", "experiments.run", "--help"])
        'experiments.run'
    """
    if argv[:1] != ["-m"]:
        return ""
    return line[len(line) - len(argv)].removeprefix("-m")
