"""What one example costs on this machine, by the clock and by the compiler."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from morph.network import Network, Variables
from regularizers.calibration.timing import interleaved

SECONDS, ROUNDS = 0.5, 7  # of the timing


def measured(seed: Network, final: Network, variables: Variables, x: Any) -> dict[str, Any]:
    """Time and memory of the seed network and of the one that a run ended with.

    Args:
        seed: the seed network; it is timed with fresh variables.
        final: the other.
        variables: its own.
        x: the inputs of one example.

    Returns:
        `device`, and for `seed` and `final` the `seconds` of one call (the median of several
        rounds, interleaved) and the `bytes` of its arguments, results and temporary arrays.
    """
    fresh = jax.jit(seed.init)(jax.random.key(0), x)
    pairs = [(seed, fresh), (final, jax.device_get(variables))]
    programs = [jax.jit(network.predict).lower(own, x).compile() for network, own in pairs]
    placed = [jax.block_until_ready(jax.device_put((own, x))) for _, own in pairs]
    runs = [lambda p=p, a=a: p(*a) for p, a in zip(programs, placed, strict=True)]
    times = np.median(interleaved(runs, seconds=SECONDS, rounds=ROUNDS), axis=1)
    facts = [
        {"seconds": float(time), "bytes": _bytes(program.memory_analysis())}
        for time, program in zip(times, programs, strict=True)
    ]
    return {"device": jax.devices()[0].device_kind, "seed": facts[0], "final": facts[1]}


def _bytes(memory: Any) -> int:
    """All that a program holds at one time; 0 where the compiler does not tell."""
    sizes = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return sum(int(getattr(memory, size, 0)) for size in sizes)
