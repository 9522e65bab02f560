"""Completion of commands, flags and values in a shell: what `morph completion` prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.commands import COMMANDS, declared
from experiments.commands.completion import COMMAND
from experiments.console.command import command_of, ending
from experiments.console.help import shown
from experiments.vocabulary import SHELLS
from morph.imports import extra

# Flags whose values are places.
_FILES = (
    "architecture", "data", "loss", "metrics", "model", "output", "picture", "plot", "start",
)  # fmt: skip
_FOLDERS = ("data_dir", "variables", "workdir")


def parser_of(shtab: Any) -> argparse.ArgumentParser:
    """All commands and their flags, as the library that writes completions wants them.

    Args:
        shtab: that library.
    """
    parser = argparse.ArgumentParser(prog="morph", add_help=False)
    commands = parser.add_subparsers()
    for name, about in COMMANDS.items():
        command = declared(name)
        own = commands.add_parser(name, help=about, add_help=False)
        options = command.define()
        for flag in (*shown(options), "help", "helpfull"):
            _add(own, options[flag], shtab)
        if command.words:
            words = own.add_argument("words", nargs="*", metavar=command.words)
            if name == COMMAND.name:
                words.choices = SHELLS
            else:
                words.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return parser


def _add(parser: argparse.ArgumentParser, flag: flags.Flag[Any], shtab: Any) -> None:
    """A flag of a command."""
    about = str(flag.help).partition(". ")[0].replace("%", "%%")
    if flag.boolean:
        parser.add_argument(f"--{flag.name}", action="store_true", help=about)
        if flag.name not in ("help", "helpfull"):
            parser.add_argument(f"--no{flag.name}", action="store_true", help=about)
        return
    known = getattr(flag.parser, "enum_values", None)
    added: Any = parser.add_argument(f"--{flag.name}", choices=known, help=about)
    if flag.name in _FILES:
        added.complete = shtab.FILE
    elif flag.name in _FOLDERS:
        added.complete = shtab.DIRECTORY


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.completion`; `argv[0]` is the program's name."""
    with ending(command_of(COMMAND.name, argv)):
        options, words = COMMAND.read(argv)
        if told := COMMAND.told(options):
            print(told)
            return
        shtab = extra("shtab", "completion in a shell", "completion")
        print(shtab.complete(parser_of(shtab), words[0]))


if __name__ == "__main__":
    main(sys.argv)
