"""What the commands have in common: help, one error a line, and how they are stopped."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import flags, logging
from rich.console import Console

from experiments.console.flags import read_flags
from experiments.console.lasting import lasting_output
from experiments.console.stop import stopped, to_go_on
from experiments.console.terminal import terminal
from morph.errors import ConfigError, Interrupted
from morph.untrusted import printable
from regularizers.errors import MorphError

# What a person can cause; everything else is a bug and shows its traceback.
USER_ERRORS = (MorphError, OSError, flags.Error)


@contextlib.contextmanager
def ending(command: str) -> Iterator[None]:
    """How a command ends: what a person caused is one line and exit status 2, Ctrl-C one and 130.

    What it prints changes nothing: not what it writes, and not the exit status.

    Args:
        command: that goes on where it was stopped.
    """
    with lasting_output():
        try:
            yield
        except Interrupted as stop:
            stopped(f"{printable(stop)}. To resume: {printable(command)}")
        except KeyboardInterrupt:
            stopped(to_go_on(printable(command)))
        except USER_ERRORS as error:
            print(f"error: {printable(error)}", file=sys.stderr)
            sys.exit(2)


def launch(
    module: str,
    about: str,
    options: flags.FlagValues,
    argv: Sequence[str],
    run: Callable[[flags.FlagValues, str, Console], None],
) -> None:
    """Runs a command with its flags, and ends as `ending` says.

    Args:
        module: its name, e.g. `experiments.sweep`.
        about: what `--help` says before the flags.
        options: its flags, among them `help`.
        argv: the command line; `argv[0]` is the program's name.
        run: `(options, command line, console)`.
    """
    command = command_of(module, argv)
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of every checkpoint
    with ending(command):
        rest = read_flags(options, argv)
        if options.help:
            print(f"{about}\n{options.get_help()}")
            return
        if len(rest) > 1:
            raise ConfigError(f"unexpected arguments: {' '.join(rest[1:])}; flags start with --")
        run(options, command, terminal())


def command_of(module: str, argv: Sequence[str]) -> str:
    """The command line that runs a module again."""
    return shlex.join(["python", "-m", module, *argv[1:]])
