"""What the commands have in common: help, one error a line, and how they are stopped."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence

from absl import flags, logging
from rich.console import Console

from experiments.console.terminal import terminal
from morph.errors import (
    ConfigError,
)
from morph.untrusted import printable
from regularizers.errors import MorphError

# What a person can cause; everything else is a bug and shows its traceback.
USER_ERRORS = (MorphError, OSError, flags.Error)


def launch(
    module: str,
    about: str,
    options: flags.FlagValues,
    argv: Sequence[str],
    run: Callable[[flags.FlagValues, str, Console], None],
) -> None:
    """Runs a command with its flags.

    Args:
        module: its name, e.g. `experiments.sweep`.
        about: what `--help` says before the flags.
        options: its flags, among them `help`.
        argv: the command line; `argv[0]` is the program's name.
        run: `(options, command line, console)`; what a person can cause is said in one line, with
            exit status 2.
    """
    command = shlex.join(["python", "-m", module, *argv[1:]])
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of every checkpoint
    try:
        rest = options(list(argv))
        if options.help:
            print(f"{about}\n{options.get_help()}")
            return
        if len(rest) > 1:
            raise ConfigError(f"unexpected arguments: {' '.join(rest[1:])}; flags start with --")
        run(options, command, terminal())
    except KeyboardInterrupt:
        print(f"\nstopped; what was finished stays. To go on: {command}", file=sys.stderr)
        sys.exit(130)
    except USER_ERRORS as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        sys.exit(2)
