"""Honest timing: compiled, warm, waited for; interleaved, so that a busy moment hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

Run: TypeAlias = Callable[[], Any]
Timer: TypeAlias = Callable[[Run], float]

ROUNDS = 21
LEAST_CALLS = 2  # of every program in every round, after one that warms the caches


def timed(run: Run) -> float:
    """Seconds that one call takes, its result waited for."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def compiled(function: Callable[..., Any], *arguments: Any) -> Run:
    """A call of the compiled function, whose arguments are on the device already."""
    arguments = jax.block_until_ready(arguments)
    executable = jax.jit(function).lower(*arguments).compile()
    return lambda: executable(*arguments)


def interleaved(
    runs: Sequence[Run],
    *,
    seconds: float,
    rounds: int = ROUNDS,
    timer: Timer = timed,
    advance: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Seconds per call of every program, one measurement of each in turn, several rounds.

    Args:
        runs: the programs.
        seconds: how long all of it may take, about; every program gets the same share.
        rounds: measurements of each.
        timer: measures one call.
        advance: told after every round.

    Returns:
        [programs, rounds]: the median call of each round.
    """
    share = seconds / max(1, len(runs) * rounds)
    medians = np.zeros((len(runs), rounds))
    for run in runs:
        timer(run)
    for k in range(rounds):
        for i, run in enumerate(runs):
            timer(run)  # warms its own caches again
            calls: list[float] = []
            while len(calls) < LEAST_CALLS or sum(calls) < share:
                calls.append(timer(run))
            medians[i, k] = np.median(calls)
        advance()
    return medians
