"""Writes report.html into the working directories of runs, sweeps and retrainings.

python -m experiments.report WORKDIR...
"""

import sys
from collections.abc import Sequence

from experiments.console.command import command_of, ending
from experiments.report.page import write_report
from experiments.report.runs import RunError
from morph.untrusted import printable


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.report`; `argv[0]` is the program's name."""
    if len(argv) > 1 and argv[1] in ("--help", "-h", "-?"):
        print(__doc__)
        return
    with ending(command_of("experiments.report", argv)):
        if len(argv) < 2 or argv[1].startswith("-"):
            found = argv[1] if len(argv) > 1 else "nothing"
            raise RunError(f"name working directories: {found} is none; --help tells more")
        for workdir in argv[1:]:
            print(printable(write_report(workdir)))


if __name__ == "__main__":
    main(sys.argv)
