"""What the commands have in common: help, one error a line, and how they are stopped."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import flags, logging
from rich.console import Console

from experiments.console.declared import Command
from experiments.console.lasting import lasting, lasting_output
from experiments.console.stop import interruptible, is_interruption, stopped, to_go_on
from experiments.console.terminal import terminal
from morph.errors import Interrupted, LostError, PeerError
from morph.untrusted import printable
from regularizers.errors import MorphError

# What a person can cause; everything else is a bug and shows its traceback.
USER_ERRORS = (MorphError, OSError, flags.Error)
LOST = 75  # exit status where another process of a run is gone: `EX_TEMPFAIL`, try again


@contextlib.contextmanager
def ending(command: str) -> Iterator[None]:
    """How a command ends: what a person caused is one line and exit status 2, Ctrl-C one and 130.

    What it prints changes nothing: not what it writes, and not the exit status.

    Args:
        command: that goes on where it was stopped.
    """
    with lasting_output(), interruptible():
        try:
            yield
        except Interrupted as stop:
            stopped(f"{printable(stop)}. To resume: {printable(command)}")
        except KeyboardInterrupt:
            stopped(to_go_on(printable(command)))
        except PeerError as error:
            fail(command, str(error), LOST if isinstance(error, LostError) else 2)
        except USER_ERRORS as error:
            fail(None, in_words(error))
        except Exception as error:
            if is_interruption(error):
                stopped(to_go_on(printable(command)))
            if not is_one_of_several():
                raise
            traceback.print_exc()
            leave(1)


def in_words(error: Exception) -> str:
    """An error for people: of the system's, the file and what is wrong with it, and no number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error)


_ENDING = threading.Lock()


def is_one_of_several() -> bool:
    """Whether this process is one of those of a run; before JAX is loaded it is none."""
    jax: Any = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def fail(command: str | None, error: str, status: int = 2) -> NoReturn:
    """Ends with one line; with the command, if it is worth repeating in all processes of a run."""
    again = ""
    if is_one_of_several():
        if not _ENDING.acquire(blocking=False):
            threading.Event().wait()  # another thread has said it, and ends us
        again = f". To go on, start all processes again: {printable(command)}" if command else ""
    print(f"error: {printable(error)}{again}", file=sys.stderr)
    leave(status)


def leave(status: int) -> NoReturn:
    """Ends the process; one of several at once: JAX would wait for the others, and abort."""
    if is_one_of_several():
        for stream in (sys.stdout, sys.stderr):
            lasting(stream).flush()
        os._exit(status)
    sys.exit(status)


def launch(
    command: Command,
    argv: Sequence[str],
    run: Callable[[flags.FlagValues, str, Console], None],
) -> None:
    """Runs a command with its flags, and ends as `ending` says.

    Args:
        command: what is known of it.
        argv: the command line; `argv[0]` is the program's name.
        run: `(options, command line, console)`.
    """
    line = command_of(command.name, argv)
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of every checkpoint
    with ending(line):
        options, _ = command.read(argv)
        if told := command.told(options):
            print(told)
            return
        run(options, line, terminal())


def command_of(name: str, argv: Sequence[str]) -> str:
    """The command line that repeats a command, as it was begun: `morph run`, or by its module."""
    if argv and argv[0].startswith("morph "):
        return shlex.join([*argv[0].split(), *argv[1:]])
    return shlex.join(["python", "-m", f"experiments.{name}", *argv[1:]])
