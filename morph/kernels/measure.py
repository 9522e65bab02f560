"""Which evaluation of a factorized kernel is the faster one, by measurement, once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from morph.files import write_text
from regularizers import json_files
from regularizers.calibration.machine import cache_path
from regularizers.calibration.timing import compiled, interleaved
from regularizers.channels.calls import abstract
from regularizers.primitives.jaxprs import JaxprEqn

SECONDS = 0.2  # that a comparison may take, about, besides compiling
ROUNDS = 5


Way: TypeAlias = tuple[Callable[[JaxprEqn, Sequence[Any]], Any], Sequence[Any]]


def faster(ways: Mapping[str, Way], eqn: JaxprEqn) -> str:
    """The name of the fastest way to evaluate an equation on operands of these shapes.

    It is measured on random numbers, compiled, on JAX's default device, and kept: in this process,
    and in `morph/tensorize` of the user's cache for later ones, by device and versions.

    Args:
        ways: by name: an evaluation, and the operands that it takes: arrays and factorized
            kernels; tracers and shapes do.
        eqn: the equation.
    """
    taken = {name: jax.tree.map(abstract, list(operands)) for name, (_, operands) in ways.items()}
    key = f"{eqn.primitive.name} {dict(eqn.params)} {_text(taken)}"
    file = cache_path(folder="tensorize")
    known = _known(file)
    if key not in known:
        known[key] = min(seconds := _measure(ways, eqn, taken), key=seconds.__getitem__)
        if file is None:
            return known[key]
        with contextlib.suppress(OSError):  # without a cache it is measured again next time
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json_files.text({**_read(file), **known}, indent=0))
    return known[key]


@cache
def _known(file: Path | None) -> dict[str, str]:
    """What is known on this device; filled as more is measured."""
    return {} if file is None else _read(file)


def _read(file: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        return json_files.read_object(file)
    return {}


def _text(taken: Mapping[str, Any]) -> str:
    """What ways take, each form once."""
    forms: dict[str, list[str]] = {}
    for name, operands in taken.items():
        leaves, tree = jax.tree.flatten(operands)
        shapes = [f"{struct.dtype}{list(struct.shape)}" for struct in leaves]
        forms.setdefault(f"{tree} {shapes}", []).append(name)
    return "; ".join(f"{'|'.join(names)}: {form}" for form, names in forms.items())


def _measure(ways: Mapping[str, Way], eqn: JaxprEqn, taken: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of one call, by way."""
    with jax.ensure_compile_time_eval():  # also where the caller is being traced
        runs = []
        for name, (way, _) in ways.items():
            leaves, tree = jax.tree.flatten(taken[name])
            rng = np.random.default_rng(0)
            values = [jnp.asarray(_numbers(rng, struct)) for struct in leaves]
            runs.append(
                compiled(
                    lambda *leaves, way=way, tree=tree: way(eqn, jax.tree.unflatten(tree, leaves)),
                    *values,
                )
            )
        seconds = interleaved(runs, seconds=SECONDS, rounds=ROUNDS)
    return dict(zip(ways, seconds.min(axis=1).tolist(), strict=True))


def _numbers(rng: np.random.Generator, struct: jax.ShapeDtypeStruct) -> np.ndarray:
    """Normal numbers; zeros for integers, which are positions."""
    if jnp.issubdtype(struct.dtype, jnp.inexact):
        return rng.standard_normal(struct.shape, np.float32).astype(struct.dtype)
    return np.zeros(struct.shape, struct.dtype)
