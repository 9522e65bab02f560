"""ONNX: the file that ONNX Runtime runs, and whatever else reads ONNX.

The equations of `freeze` are written one by one, by the table of `onnx_rules`; ONNX's own checker
reads the result, and ONNX Runtime runs it beside JAX.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.errors import ExportError, need
from morph.export.attempts import attempt, first_line
from morph.export.exported import UNKNOWN, Exported, Runner, batched
from morph.export.frozen import Step, culprit, freeze, steps
from morph.export.onnx_graph import OnnxGraph
from morph.export.trial import COARSE_ROOM, ROOM, difference
from regularizers.channels.calls import joined_path
from regularizers.checks import FUNCTION, NAMES, PATH, checked

_missing: ModuleNotFoundError | None = None
try:
    import onnx
    import onnxruntime
except ModuleNotFoundError as error:
    _missing = error

INPUT, OUTPUT = "input", "logits"
EXAMPLES = "examples"  # what a file says of them, see `Exported`


def check_installed() -> None:
    """Raises `MissingExtraError`, before any work, if a package is missing."""
    need("ONNX", _missing, "export")


@checked(fn=FUNCTION, path=PATH, constraints=NAMES)
def to_onnx(
    fn: Callable[..., Any],
    variables: Any,
    example: Any,
    path: str | Path,
    *,
    shapes: Any = None,
    constraints: Sequence[str] = (),
) -> Exported:
    """Writes a function and its weights as one ONNX file, and runs it beside JAX.

    The file takes a batch of any size where the function allows it; where it does not, the
    example's batch is fixed and the note says why. Values and layouts are those of JAX, so images
    are [N, H, W, C]. Several inputs and outputs are called as they are in their trees:
    `{"tokens": ..., "mask": ...}`; one array alone is `input`, or `logits`. Where they are of
    bfloat16 the file takes and gives float32.

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

    Raises:
        ExportError: if an operation has no counterpart, or ONNX Runtime makes something else of
            it, naming it and its layer. MissingExtraError.

    Example:
        >>> to_onnx(network.predict, variables, x, "net.onnx")       # doctest: +SKIP
        >>> load("net.onnx")(images)                                 # doctest: +SKIP
        >>> to_onnx(fn, variables, tokens, "lm.onnx", shapes="batch, length")  # doctest: +SKIP
    """
    check_installed()

    def make(form: Callable[..., Any], given: Any, examples: str) -> bytes:
        return _checked(_converted(freeze(form, variables), given, examples))

    def explained(error: Exception, structs: Any) -> Exception:
        found = steps(fn, variables, structs)  # raises what the user's code does
        return _explained(error, found)

    return attempt(
        "onnx",
        fn,
        variables,
        example,
        path,
        shapes,
        constraints,
        make=make,
        load=load,
        explained=explained,
    )


def load(path: str | Path) -> Runner:
    """Opens an ONNX file in ONNX Runtime, on the CPU; returns inputs [N, ...] -> outputs.

    Several inputs are given as a tree with the names of the file, or as a list in its order;
    several outputs are given back by name.

    Raises:
        ExportError: if the file cannot be read; when called, if the inputs are others.
            MissingExtraError.
    """
    check_installed()
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong is raised
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise ExportError(f"ONNX Runtime cannot read {path}: {error}") from error
    given = {x.name: x.shape for x in session.get_inputs()}
    names = [x.name for x in session.get_outputs()]
    first = next((shape[0] for shape in given.values() if shape), None)
    facts = session.get_modelmeta().custom_metadata_map

    def run(inputs: Any) -> Any:
        results = session.run(names, _feeds(inputs, list(given)))
        return results[0] if len(names) == 1 else OrderedDict(zip(names, results, strict=True))

    batch = first if isinstance(first, int) else None
    return batched(run, batch, facts.get(EXAMPLES, UNKNOWN))


def names_of(inputs: Any) -> list[str]:
    """What a file calls its inputs."""
    return list(_named(inputs, INPUT))


def _feeds(inputs: Any, names: Sequence[str]) -> dict[str, Any]:
    """Inputs by the names of a file."""
    found = _named(inputs, INPUT)
    if found.keys() != set(names) and len(found) == len(names) and not isinstance(inputs, Mapping):
        found = dict(zip(names, found.values(), strict=True))
    if found.keys() != set(names):
        raise ExportError(f"the file takes {', '.join(names)}; found {', '.join(found)}")
    return {name: _float32(value) for name, value in found.items()}


def _float32(value: Any) -> Any:
    """What is of bfloat16, in the type that ONNX Runtime takes."""
    return np.asarray(value, np.float32) if value.dtype == jnp.bfloat16 else value


def _named(tree: Any, alone: str, taken: Sequence[str] = ()) -> dict[str, Any]:
    """The leaves of a tree by their paths; `alone` for an array that is no tree."""
    entries, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = [joined_path(path) or alone for path, _ in entries]
    names = [f"new_{name}" if name in taken else name for name in names]
    return {name: leaf for name, (_, leaf) in zip(names, entries, strict=True)}


def _checked(model: Any) -> bytes:
    """The model as bytes, read by ONNX's checker, which infers all shapes."""
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _converted(fn: Callable[[Any], Any], structs: Any, examples: str) -> Any:
    """The model, as ONNX's protocol buffer."""
    closed, outputs = jax.make_jaxpr(fn, return_shape=True)(structs)
    own = _named(structs, INPUT)
    inputs = {name: _readable(x) for name, x in own.items()}
    results = _named(outputs, OUTPUT, list(inputs))
    graph = OnnxGraph.of(inputs, results)
    found = graph.run(
        closed,
        [n if x.dtype == inputs[n].dtype else graph.cast(n, x.dtype) for n, x in own.items()],
    )
    for (name, x), result in zip(results.items(), found, strict=True):
        as_read = result if x.dtype == _readable(x).dtype else graph.cast(result, np.float32)
        graph.node("Identity", as_read, name=name)
    results = {name: _readable(x) for name, x in results.items()}
    return graph.model(inputs, results, **{EXAMPLES: examples or UNKNOWN})


def _readable(struct: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """With float32 in the place of bfloat16, which ONNX Runtime neither takes nor gives."""
    return struct.update(dtype=np.float32) if struct.dtype == jnp.bfloat16 else struct


def _explained(problem: Exception, found: Sequence[Step]) -> ExportError:
    """The error that names the operation and its layer."""
    if isinstance(problem, ExportError) and str(problem).startswith("cannot write"):
        return problem  # by a rule
    guilty = culprit(found, _refusal)
    if guilty is None:
        return ExportError(f"ONNX Runtime cannot run this network: {problem}")
    step, why = guilty
    return ExportError(
        f"cannot write {step.eqn.primitive} in {step.where} as ONNX: {why}. Write that layer with "
        "other operations, or export to StableHLO, which has all of JAX."
    )


def _refusal(step: Step) -> str:
    """Why an equation alone is something else in ONNX Runtime; "" if it is not."""
    run, structs = step.alone()
    rng = np.random.default_rng(0)
    values = [_sample(rng, x) for x in structs]
    try:
        model = _converted(lambda given: run(*given), list(structs), UNKNOWN)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        names = [x.name for x in session.get_inputs()]
        found = session.run(None, dict(zip(names, values, strict=True)))
        room = COARSE_ROOM if any(x.dtype.itemsize == 2 for x in structs) else ROOM
        pairs = zip(run(*values), found, strict=True)
        return next(filter(None, (difference(np.asarray(a), b, room) for a, b in pairs)), "")
    except Exception as error:  # of ONNX, or of ONNX Runtime
        return first_line(error)


def _sample(rng: np.random.Generator, struct: jax.ShapeDtypeStruct) -> np.ndarray:
    if np.dtype(struct.dtype).kind in "iub":
        return np.asarray(rng.integers(2, size=struct.shape)).astype(struct.dtype)
    return np.asarray(rng.normal(size=struct.shape)).astype(struct.dtype)
