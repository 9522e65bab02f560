"""The other processes of a run: that all are asked for the same, and that one is gone.

Where a process dies, JAX ends the others by an abort, with a stack trace. Here they are told what
happened, and end as they like.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import jax

from morph.errors import LostError, MeshError, MorphError
from morph.training.mesh import (
    HEARTBEAT_S,
    JOIN_S,
    connect,
    gathered,
    is_first,
    is_one_of_many,
)

_RECORD = re.compile(rb"[IWEF]\d{4} \d\d:\d\d:")  # the first line of one in the log of JAX's C++
_NOISE = re.compile(rb"coordination|preemption|distributed")
_GONE = re.compile(rb"Polled an error from coordination service|Terminating process because")
_FIRST = re.compile(rb"Failed to send RPC to coordination service")  # which process 0 has
_NAMED = re.compile(rb"tasks are unhealthy")  # the next line has their numbers
_NAMING_S = HEARTBEAT_S + 5  # until JAX tells which process is gone, at most
_ABORT = re.compile(rb"terminate called|Check failure stack trace")  # a sleep of 6 s begins
_TELLING_S = 2
_Handler = ctypes.CFUNCTYPE(None)
_handlers: list[Any] = []  # C has only their addresses
_LOST = ("Gloo", "NCCL", "onnection", "UNAVAILABLE", "DEADLINE", "heartbeat", "coordination")


def join(
    gone: Callable[[str], None],
    coordinator: str | None = None,
    process_id: int | None = None,
    num_processes: int | None = None,
    *,
    timeout_s: float = JOIN_S,
) -> bool:
    """Joins the processes of a run, as `mesh.connect`, and watches them from then on.

    Args:
        gone: is told, in words, that one of the others is gone or did not come, in a thread of its
            own; it should end this process.
        coordinator: as of `connect`, as are the others.
        process_id: likewise.
        num_processes: likewise.
        timeout_s: likewise.

    Raises:
        MeshError: likewise.
    """
    if not is_one_of_many(coordinator, process_id, num_processes):
        return False
    joined = threading.Event()

    def told(cause: str) -> None:
        missing = (
            f"not all {num_processes or ''} processes of this run came within {timeout_s:g} s; "
            "start all of them, with the same --num_processes and --coordinator, an address of the "
            "machine of process 0"
        )
        gone(cause if joined.is_set() else missing.replace("  ", " "))

    watch(told)
    connect(coordinator, process_id, num_processes, timeout_s=timeout_s)
    joined.set()
    return True


def watch(gone: Callable[[str], None], *, held_s: float = _NAMING_S + 5) -> None:
    """Calls a function once JAX finds that another process is gone; it should end this one.

    JAX only says so in its log, and aborts at once. So the log is read here, and passed on without
    what is about other processes; and an abort first sleeps some seconds. An exception of C++ that
    nothing catches waits until JAX has said which process is gone: Gloo throws one in a thread of
    its own, where it gets what belongs to a later exchange from a process that gave up this one.

    Args:
        gone: takes what is known, in words; called in a thread of its own.
        held_s: for so long such an exception waits, before it aborts as it would have.
    """
    if os.name != "posix":
        return
    _watching.set()
    _hold_exceptions(held_s)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))  # sleep(SIGABRT): 6 s
    read, write = os.pipe()
    stderr = os.fdopen(os.dup(2), "wb", buffering=0)
    os.dup2(write, 2)
    os.close(write)
    sys.stderr = os.fdopen(
        os.dup(stderr.fileno()), "w", buffering=1, encoding="utf-8", errors="backslashreplace"
    )
    log = os.fdopen(read, "rb")
    threading.Thread(target=_pass_on, args=(log, stderr, gone), daemon=True).start()


def _hold_exceptions(seconds: float) -> None:
    """Lets exceptions of C++ that nothing catches wait; other threads go on meanwhile."""
    try:
        set_terminate = ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE
    except (OSError, AttributeError):  # another library of C++
        return
    set_terminate.argtypes, set_terminate.restype = (_Handler,), _Handler

    def wait() -> None:
        time.sleep(seconds)
        before()  # says what it was, and aborts

    _handlers.append(_Handler(wait))
    before = set_terminate(_handlers[-1])


_watching, _aborting = threading.Event(), threading.Event()


def _pass_on(log: BinaryIO, stderr: BinaryIO, gone: Callable[[str], None]) -> None:
    noise = named = False
    silent = "it was not heard of any more"
    for line in log:
        if named:
            if is_first():  # who tells the others: not to be gone before they are told
                time.sleep(_TELLING_S)
            gone(_told(silent, line.decode(errors="replace").strip()))
        if _RECORD.match(line):
            noise = bool(_NOISE.search(line))
        if _ABORT.search(line):
            _aborting.set()
        if _FIRST.search(line):
            gone(_told(silent, "0"))
        elif named := bool(_NAMED.search(line)):
            continue
        elif _GONE.search(line):  # more may follow
            later = threading.Timer(1.0, gone, [_told(silent)])
            later.daemon = True
            later.start()
        elif not noise:
            stderr.write(line)


@contextmanager
def lost_peers() -> Iterator[None]:
    """Turns what JAX raises where another process is gone into a `LostError`.

    Where `watch` is told which process it is, that comes first.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # the latter where arrays are placed
        text, ours = str(error), isinstance(error, MorphError)
        if ours or jax.process_count() == 1 or not any(word in text for word in _LOST):
            raise
        if _watching.is_set():
            _aborting.wait(_NAMING_S)
            time.sleep(_TELLING_S)
        raise LostError(_told(text.splitlines()[0].rsplit(": ", 1)[-1][:160])) from error


def check_alike(facts: Callable[[], Mapping[str, Any]]) -> None:
    """Raises, in every process, unless all have the same devices and were asked for the same.

    Args:
        facts: makes plain JSON that must be the same in all processes.

    Raises:
        MeshError: naming what differs, and the processes.
    """
    if jax.process_count() == 1:
        return
    devices = Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        told = ", ".join(f"{count} in process {i}" for i, count in sorted(devices.items()))
        raise MeshError(f"all processes must have the same number of devices; found {told}")
    first, *others = map(json.loads, gathered(json.dumps(facts(), default=str).encode()))
    for number, other in enumerate(others, start=1):
        odd = [name for name in sorted({*first, *other}) if first.get(name) != other.get(name)]
        if odd:
            told = "; ".join(
                f"{name}: {first.get(name)!r} in process 0, {other.get(name)!r} in process {number}"
                for name in odd
            )
            raise MeshError(
                f"the processes of a run must be started alike, with the same flags, data and "
                f"versions; found {told}"
            )


def _told(cause: str, numbers: str = "") -> str:
    which = f"process {numbers}" if numbers else "another process"
    return f"{which} of this run is gone ({cause}); what it said last may tell why"
