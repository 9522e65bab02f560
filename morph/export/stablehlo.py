"""StableHLO: the file that any other JAX runs, without Flax, Morph or the model's code.

Source: `jax.export`, https://docs.jax.dev/en/latest/export/export.html; a file can be read for at
least six months by newer versions of JAX (forwards: three weeks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from morph.errors import ExportError, need
from morph.export.attempts import attempt, first_line
from morph.export.exported import INDEPENDENT, MIXED, UNKNOWN, Exported, Runner, batched
from morph.export.frozen import freeze
from regularizers.checks import FUNCTION, NAMES, PATH, Rule, all_of, checked

_missing: ModuleNotFoundError | None = None
try:
    import flatbuffers  # noqa: F401  (`jax.export` writes and reads its files with it)
except ModuleNotFoundError as error:
    _missing = error

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_BACKENDS = {"cuda": "gpu", "rocm": "gpu"}
_NAME = "network_of_examples_"  # and what is known of them
SOME = all_of(Rule(asked="", kind=PLATFORMS.__contains__), f"some of {', '.join(PLATFORMS)}")


def check_installed() -> None:
    """Raises `MissingExtraError`, before any work, if a package is missing."""
    need("StableHLO", _missing, "export")


@checked(fn=FUNCTION, path=PATH, constraints=NAMES, platforms=SOME)
def to_stablehlo(
    fn: Callable[..., Any],
    variables: Any,
    example: Any,
    path: str | Path,
    *,
    shapes: Any = None,
    constraints: Sequence[str] = (),
    platforms: Sequence[str] = PLATFORMS,
) -> Exported:
    """Writes a function and its weights as one StableHLO file, and runs it beside JAX.

    The file takes a batch of any size where the function allows it; where it does not, e.g.
    because Python code compares the batch with a number, the example's batch is fixed and the
    note says why.

    Args:
        fn: `fn(variables, x)`, arrays or trees of arrays; e.g. `network.predict`.
        variables: the weights, which go into the file.
        example: an input [N, ...], an array or its shape, or a tree of them. The batch stands in
            front of each but those without axes.
        path: of the file.
        shapes: which sizes may vary, in the notation of `jax.export.symbolic_args_specs`: e.g.
            `"batch, length"`, or a tree of such texts like the example, `{"x": "nodes, ..."}`;
            `...` stands for sizes that may not. None for the batch alone, where it can.
        constraints: what holds of these sizes, where the function asks: e.g. `"length <= 64"`.
        platforms: that may run it; of `cpu`, `cuda`, `rocm`, `tpu`.

    Raises:
        ExportError: if JAX cannot export the function, or the file gives something else.
            MissingExtraError.

    Example:
        >>> to_stablehlo(network.predict, variables, x, "net.stablehlo")   # doctest: +SKIP
        >>> load("net.stablehlo")(x)                                       # doctest: +SKIP
    """
    check_installed()
    here = jax.default_backend() in {_BACKENDS.get(own, own) for own in platforms}

    def make(form: Callable[..., Any], given: Any, examples: str) -> bytes:
        network = freeze(form, variables)
        network.__name__ = f"{_NAME}{examples}"  # the file keeps it
        exported = jax_export.export(jax.jit(network), platforms=platforms)(given)
        return bytes(exported.serialize())

    def explained(error: Exception, _: Any) -> Exception:
        if not isinstance(error, NotImplementedError | TypeError):
            return error
        return ExportError(
            f"jax.export cannot write this function: {first_line(error)}. Name fewer platforms, "
            "or leave out what only one of them has."
        )

    return attempt(
        "stablehlo", fn, variables, example, path, shapes, constraints, make=make,
        load=load if here else None, explained=explained,
    )  # fmt: skip


def load(path: str | Path) -> Runner:
    """Reads a file of `to_stablehlo`; returns inputs [N, ...] -> outputs [N, ...], or trees.

    Raises:
        ExportError: if the file is none. MissingExtraError.
    """
    check_installed()
    try:
        exported = jax_export.deserialize(bytearray(Path(path).read_bytes()))
        sizes = [aval.shape[0] for aval in exported.in_avals if aval.shape]
    except Exception as error:  # the reader of flatbuffers raises what it happens to meet
        raise ExportError(f"{path} is not a file of jax.export: {error}") from error
    run = jax.jit(exported.call)
    batch = sizes[0] if sizes and isinstance(sizes[0], int) else None
    examples = exported.fun_name.removeprefix(_NAME)
    return batched(
        lambda x: jax.tree.map(np.asarray, run(x)),
        batch,
        examples if examples in (INDEPENDENT, MIXED) else UNKNOWN,
    )
