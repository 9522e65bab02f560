"""What one example costs on this machine, by the clock and by the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from morph.architecture.architecture import Architecture
from morph.network import Network
from regularizers.calibration.timing import interleaved

SECONDS, ROUNDS = 0.25, 7  # of the timing, of each network


def measured(
    network: Network, architectures: Mapping[str, Architecture], x: Any
) -> dict[str, dict[str, Any]]:
    """Time and memory of the networks of a run, with fresh variables.

    Args:
        network: the seed network.
        architectures: of each, by name; those of the same shapes are measured once.
        x: the inputs of one example.

    Returns:
        By name the `seconds` of one call (the median of several rounds, interleaved), the `bytes`
        of its arguments, results and temporary arrays, and the `device`. Nothing in a run of
        several processes, of which one alone cannot run it.
    """
    if jax.process_count() > 1:
        return {}
    alike = {name: (*own.widths.values(), *own.factorized) for name, own in architectures.items()}
    networks = {alike[name]: network.resized(own) for name, own in architectures.items()}
    pairs = [(own, jax.jit(own.init)(jax.random.key(0), x)) for own in networks.values()]
    programs = [jax.jit(own.predict).lower(variables, x).compile() for own, variables in pairs]
    placed = [jax.block_until_ready(jax.device_put((variables, x))) for _, variables in pairs]
    runs = [lambda p=p, a=a: p(*a) for p, a in zip(programs, placed, strict=True)]
    times = np.median(interleaved(runs, seconds=SECONDS * len(runs), rounds=ROUNDS), axis=1)
    device = jax.devices()[0].device_kind
    facts = {
        shapes: {
            "seconds": float(time),
            "bytes": _bytes(program.memory_analysis()),
            "device": device,
        }
        for shapes, time, program in zip(networks, times, programs, strict=True)
    }
    return {name: facts[shapes] for name, shapes in alike.items()}


def _bytes(memory: Any) -> int:
    """All that a program holds at one time; 0 where the compiler does not tell."""
    sizes = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    return sum(int(getattr(memory, size, 0)) for size in sizes)
