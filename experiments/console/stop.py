"""Ctrl-C, from the first import to the last line: one line, and exit status 130.

It loads nothing but the standard library, so that it holds while everything else is loaded.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

STATUS = 130
_AGAIN_S = 0.05


def from_the_first_import(*, script: bool = False) -> None:
    """Lets Ctrl-C end a command at once that is being started: nothing is there to be lost.

    A `KeyboardInterrupt` would not do: modules in C make other errors of it while they load.

    Args:
        script: the program is the script `morph`, and not `python -m` of a module.
    """
    starts = script or sys.argv[:1] == ["-m"]  # what Python says while it looks for the module
    if starts and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Lets Ctrl-C raise a `KeyboardInterrupt`, in a command that tidies up after itself."""
    if signal.getsignal(signal.SIGINT) is not _end:
        yield
        return
    hook = sys.unraisablehook
    sys.unraisablehook = _again
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)


def stopped(text: str) -> NoReturn:
    """Ends the process, whose last line this is; another Ctrl-C ends it at once.

    Raises:
        SystemExit: with 130.
    """
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.suppress(OSError, ValueError):
        print(f"\n{text}", file=sys.stderr, flush=True)
    raise SystemExit(STATUS)


def to_go_on(command: str) -> str:
    """What is said to who stopped a command."""
    return f"stopped; what was finished stays. To go on: {command}"


def is_interruption(error: BaseException | None) -> bool:
    """Whether a `KeyboardInterrupt` is behind an error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def again() -> str:
    """The command line that started this process, as a person would type it."""
    if Path(sys.argv[0]).name == "morph":
        return shlex.join(["morph", *sys.argv[1:]])
    return shlex.join(["python", *sys.orig_argv[1:]])


def _end(number: int, frame: FrameType | None) -> NoReturn:
    text = to_go_on(again())
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode(errors="replace"))
    os._exit(STATUS)


def _again(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised while it tidies up, an interruption as well: it comes again."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
