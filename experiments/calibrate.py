"""Times the operations of this machine: what `morph calibrate` does."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags
from rich.console import Console

import regularizers as reg
from experiments.commands.calibrate import COMMAND
from experiments.console.command import launch
from regularizers.calibration.machine import cache_path


def run(options: flags.FlagValues, command: str, console: Console) -> None:
    """Times, or reads what was found before, and shows it."""
    found = reg.calibrate(cache=not options.fresh, seconds=options.timing_seconds)
    if options.fresh and not found.busy and (file := cache_path()) is not None:
        found.save(file)
    if options.output:
        found.save(options.output)
    console.print(str(found))


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.calibrate`; `argv[0]` is the program's name."""
    launch(COMMAND, argv, run)


if __name__ == "__main__":
    main(sys.argv)
