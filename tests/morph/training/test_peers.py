"""Processes are compared; where one dies the others are told, and end as they were asked to."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from morph.errors import LostError, MeshError
from morph.training import peers

ROOT = Path(__file__).parents[3]
PROCESS = """
import os, signal, sys, time
from morph.errors import MeshError
from morph.training.peers import check_alike, join

def gone(cause):
    print("error:", cause, file=sys.stderr)
    os._exit(2)

number = int(sys.argv[2])
assert join(gone, sys.argv[1], number, 2, timeout_s=int(sys.argv[3]))
os.write(2, b"passed on\\n")
check_alike(lambda: {"same": 1, "path": os.curdir})
try:
    check_alike(lambda: {"same": 1, "learning_rate": (0.1, 0.2)[number], f"only_{number}": 0})
except MeshError as error:
    print(error, flush=True)
if number == 0:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""

TERMINATED = """
import ctypes, os, signal, sys, threading
from morph.training.peers import watch

def gone(cause):
    print("error:", cause, file=sys.stderr)
    os._exit(75)

watch(gone, held_s=float(sys.argv[1]))
signal.signal(signal.SIGTERM, lambda *_: None)
says = b"E1201 01:02:03.4 5 client.cc:6] Failed to send RPC to coordination service\\n"
threading.Timer(float(sys.argv[2]), os.write, (2, says)).start()
ctypes.CDLL("libstdc++.so.6")._ZSt9terminatev()
"""


def started(coordinator, number, timeout_s):
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, coordinator, str(number), str(timeout_s)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def errors_of(error):
    return [line for line in error.splitlines() if line.startswith(("error", "E", "F", "*"))]


def test_processes_are_compared_and_one_that_dies_ends_the_other_with_one_line():
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        both, lone = (f"127.0.0.1:{found.getsockname()[1]}" for found in (one, other))
    alone = started(lone, 0, 2)  # the second never comes
    first, second = (started(both, i, 120) for i in range(2))
    told, _ = first.communicate(timeout=200)
    since = time.monotonic()
    said, error = second.communicate(timeout=60)
    assert time.monotonic() - since < 30
    assert (first.returncode, second.returncode) == (-signal.SIGKILL, 2)
    assert told.splitlines()[-1] == said.splitlines()[-1]
    assert (
        "found learning_rate: 0.1 in process 0, 0.2 in process 1; only_0: 0 in process 0, None in "
        "process 1; only_1: None in process 0, 0 in process 1" in said
    )
    assert "same:" not in said
    assert "passed on\n" in error
    (line,) = errors_of(error)
    assert "process 0 of this run is gone (it was not heard of any more)" in line
    _, error = alone.communicate(timeout=60)
    (line,) = errors_of(error)
    assert alone.returncode == 2
    assert "not all 2 processes of this run came within 2 s; start all of them" in line


@pytest.mark.skipif(sys.platform != "linux", reason="libstdc++")
def test_an_exception_of_cpp_waits_until_it_is_known_who_is_gone_and_aborts_if_nobody_is():
    def terminated(*seconds):
        command = [sys.executable, "-c", TERMINATED, *map(str, seconds)]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    told, held = terminated(60, 0.1), terminated(0.1, 60)
    _, error = told.communicate(timeout=60)
    assert told.returncode == 75
    assert error.startswith("error: process 0 of this run is gone")
    assert error.count("\n") == 1
    assert "terminate called without an active exception" in held.stderr.readline()
    held.terminate()  # wakes an abort from its sleep
    assert held.wait(timeout=60) == -signal.SIGABRT
    held.stderr.close()


def test_only_what_tells_of_a_lost_process_is_turned(monkeypatch):
    def raised(text, processes, kind=jax.errors.JaxRuntimeError):
        monkeypatch.setattr(jax, "process_count", lambda: processes)
        with peers.lost_peers():
            raise kind(text)

    lost = "INTERNAL: Gloo all-reduce failed: Read error [::1]:9: Connection reset by peer\nmore"
    with pytest.raises(LostError, match=r"is gone \(Connection reset by peer\); what it said"):
        raised(lost, 2)
    for text, processes in ((lost, 1), ("RESOURCE_EXHAUSTED: Out of memory", 2)):
        with pytest.raises(jax.errors.JaxRuntimeError):
            raised(text, processes)
    gathering = "UNKNOWN: Gloo AllGather failed: [pair.cc:538] Read error: Connection reset by peer"
    with pytest.raises(LostError, match=r"is gone \(Connection reset by peer\)"):
        raised(gathering, 2, ValueError)
    for kind, text in ((ValueError, "axis 3 is out of bounds"), (MeshError, "no connection")):
        with pytest.raises(kind, match=text):
            raised(text, 2, kind)
