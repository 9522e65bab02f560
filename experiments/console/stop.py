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
from types import TracebackType
from typing import NoReturn

STATUS = 130
_AGAIN_S = 0.05


def from_the_first_import() -> None:
    """Makes one line of an interruption that nothing else takes, if a command is being started."""
    if sys.argv[:1] == ["-m"]:  # what Python says while it looks for the module
        sys.excepthook, sys.unraisablehook = _uncaught, _unraisable


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


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        stopped(to_go_on(shlex.join(["python", *sys.orig_argv[1:]])))
    sys.__excepthook__(kind, error, trace)


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised while it tidies up, an interruption as well: it comes again."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
