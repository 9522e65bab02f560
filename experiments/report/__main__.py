"""Writes the pages of runs again: what `morph report` does."""

import sys
from collections.abc import Sequence

from experiments.commands.report import COMMAND
from experiments.console.command import command_of, ending
from experiments.report.page import write_report
from morph.untrusted import printable


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.report`; `argv[0]` is the program's name."""
    with ending(command_of("report", argv)):
        options, workdirs = COMMAND.read(argv)
        if told := COMMAND.told(options):
            print(told)
            return
        for workdir in workdirs:
            print(printable(write_report(workdir)))


if __name__ == "__main__":
    main(sys.argv)
