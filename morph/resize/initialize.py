"""Fresh variables at an architecture's widths, drawn as the model's own initializer would.

The initializer itself is resized like any function, so that its distributions stay what they are.
Only the scale of a fan-dependent law must be corrected: it was computed from the seed's shapes.
The law of every leaf (constant, fixed scale, or variance scaling by fan-in, fan-out or their
average) is inferred from samples at the seed's widths.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from morph.architecture.architecture import ARCHITECTURE, Architecture
from morph.architecture.removed import without
from morph.errors import ArchitectureError
from morph.resize.compact import fixed_inputs, make_plan
from morph.resize.evaluate import evaluate
from morph.resize.sizes import thaw
from regularizers.channels.calls import abstract, check_function, flat_paths
from regularizers.channels.inference import Inference
from regularizers.channels.parts import UNUSED, Variable
from regularizers.checks import FUNCTION, Rule, checked
from regularizers.messages import near
from regularizers.primitives import jaxprs
from regularizers.primitives.axes import groups_of
from regularizers.primitives.terms import Atom

Shape: TypeAlias = tuple[int, ...]

SAMPLES = 32  # draws of the seed's initializer at most
NUMBERS = 20_000_000  # that they hold together at most
# An initializer runs once: compiling it well would take longer than running it.
COMPILE_QUICKLY: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
KEY = Rule(
    asked="a JAX random key, e.g. jax.random.key(0)",
    kind=lambda value: isinstance(value, jax.Array | np.ndarray),
    holds=lambda value: (
        jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        or (value.dtype == np.uint32 and value.ndim == 1)
    ),
)
TOLERANCE = 0.03  # of a standard deviation: laws further apart are told apart


def fan_in(variable: Variable, shape: Shape) -> float:
    """Inputs per output: all axes but those that only produce or that stack kernels."""
    return math.prod(
        n
        for k, n in enumerate(shape)
        if k not in variable.produces
        or (k in variable.consumes and any(True for _ in groups_of(variable.axes[k])))
    )


def fan_out(variable: Variable, shape: Shape) -> float:
    """Outputs per input: all axes but those that consume."""
    return math.prod(n for k, n in enumerate(shape) if k not in variable.consumes)


def fan_average(variable: Variable, shape: Shape) -> float:
    """The mean of fan-in and fan-out."""
    return (fan_in(variable, shape) + fan_out(variable, shape)) / 2


def features(variable: Variable, shape: Shape) -> float:
    """The width of a table that is looked up (Flax's default for embeddings)."""
    return math.prod(n for k, n in enumerate(shape) if k in variable.produces)


Fan: TypeAlias = Callable[[Variable, Shape], float]

FANS: dict[str, Fan] = {
    "fan_in": fan_in,
    "fan_out": fan_out,
    "fan_avg": fan_average,
    "features": features,
}
# Variance x fan of the initializers in use: Lecun and Glorot 1, He 2, PyTorch's default 1/3.
SCALES = (1.0, 2.0, 1.0 / 3.0)


@checked(init_fn=FUNCTION, architecture=ARCHITECTURE, key=KEY)
def init(init_fn: Callable[..., Any], architecture: Architecture, key: Any, *args: Any) -> Any:
    """Fresh variables at the architecture's widths.

    Args:
        init_fn: the seed's initializer, `init_fn(key, *args) -> variables`, e.g. `model.init`.
        architecture: what every group became.
        key: a JAX random key.
        *args: what the initializer takes besides, e.g. an input.

    Returns:
        Variables of the architecture's shapes; factorized kernels as cores, whose product has the
        variance that the kernel was drawn with.

    Raises:
        ArchitectureError: if `init_fn` does not give the variables of the architecture's seed, or
            an initializer cannot be drawn at other widths.

    Example:
        >>> fresh = morph.init(model.init, wide, jax.random.key(1), x)  # doctest: +SKIP
    """
    check_function(init_fn)
    drawn = _resized(init_fn, architecture, key, args)
    laws = infer_laws(init_fn, architecture, args)
    paths, leaves, treedef = flat_paths(drawn)
    scaled: list[Any] = []
    for path, leaf in zip(paths, leaves, strict=True):
        variable = architecture.variables[path]
        fan = FANS.get(laws[path])
        if fan is not None:
            ratio = fan(variable, variable.shape) / max(
                fan(variable, architecture.shape(path)), 1e-9
            )
            leaf = leaf * jnp.asarray(math.sqrt(ratio), leaf.dtype)
        if path in architecture.factorized:
            own_key = jax.random.fold_in(key, len(scaled))
            leaf = architecture.factorized[path].draw(leaf, own_key)
        scaled.append(leaf)
    return jax.tree.unflatten(treedef, scaled)


def infer_laws(
    init_fn: Callable[..., Any], architecture: Architecture, args: Sequence[Any]
) -> dict[str, str]:
    """The law of every leaf: a name in `FANS`, or `fixed` (constants included).

    Where several laws explain a leaf (a square kernel), the one that explains most others wins.
    """
    total = sum(math.prod(variable.shape) for variable in architecture.variables.values())
    draws = max(1, min(SAMPLES, NUMBERS // max(total, 1)))

    def deviations(key: Any, blank: Any) -> dict[str, Any]:
        paths, leaves, _ = flat_paths(init_fn(key, *blank))
        moments = [jnp.stack([jnp.mean(x), jnp.mean(jnp.square(x))]) for x in map(_real, leaves)]
        return dict(zip(paths, moments, strict=True))

    with jax.ensure_compile_time_eval():  # so that init may be jitted
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tuple(args))
        # The fastest generator to compile; its streams need only be good enough for a variance.
        keys = jax.random.split(jax.random.key(0, impl="unsafe_rbg"), draws)
        sample = jax.jit(
            lambda keys, x: jax.lax.map(lambda key: deviations(key, x), keys),
            compiler_options=COMPILE_QUICKLY,
        )
        moments = sample(keys, blank)
    matches: dict[str, list[str]] = {}
    for path, moment in moments.items():
        mean, square = np.asarray(moment, np.float64).mean(0)
        variance = float(square - mean**2)
        matches[path] = _laws(architecture.variables[path], variance, draws, float(square))
    votes = Counter(names[0] for names in matches.values() if len(names) == 1)
    order = {name: (-votes[name], i) for i, name in enumerate(FANS)}
    return {
        path: min(names, key=lambda name: order[name]) if names else "fixed"
        for path, names in matches.items()
    }


def _laws(variable: Variable, variance: float, draws: int, square: float) -> list[str]:
    """The laws whose standard deviation at the seed's shape is the one seen."""
    count = math.prod(variable.shape) * draws
    if len(variable.shape) < 2 or variance <= 1e-12 * max(square, 1e-30) or count < 2:
        return []
    tolerance = max(TOLERANCE, 3.0 / math.sqrt(2.0 * count))
    deviation = math.sqrt(variance)
    return [
        name
        for name, fan in FANS.items()
        if any(
            abs(deviation / math.sqrt(scale / max(fan(variable, variable.shape), 1.0)) - 1.0)
            < tolerance
            for scale in SCALES
        )
    ]


def _real(leaf: Any) -> Any:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return jnp.zeros(1)
    return jnp.asarray(leaf, jnp.float32).reshape(-1) if leaf.size else jnp.zeros(1)


def _resized(
    init_fn: Callable[..., Any], architecture: Architecture, key: Any, args: Sequence[Any]
) -> Any:
    """`init_fn` evaluated at the architecture's widths, scales as at the seed's."""
    inputs, tree = jax.tree.flatten((key, *args))
    arrays = [jnp.asarray(leaf) for leaf in inputs]
    inference = Inference()
    closed, outputs = jaxprs.trace(
        lambda *flat: init_fn(*jax.tree.unflatten(tree, flat)), *map(abstract, arrays)
    )
    body = inference.run(closed, fixed_inputs(inference, arrays))
    groups = {n: Atom(group.seed_width, name=n) for n, group in architecture.groups.items()}
    inference.solver.source = None
    _check_seed(architecture, outputs)
    for path, axes in zip(flat_paths(outputs)[0], body.outputs, strict=True):
        variable = architecture.variables[path]
        for axis, term in zip(variable.axes, axes, strict=True):
            if variable.kind != UNUSED:  # nobody knows its axes; compact slices it where it is read
                inference.solver.unify(thaw(axis, groups), term)

    plan = make_plan(architecture, groups, inference, body, "initializer")

    def run(*arrays: Any) -> list[Any]:
        return evaluate(plan, body, arrays)

    traced = any(isinstance(array, jax.core.Tracer) for array in arrays)
    flat = run(*arrays) if traced else jax.jit(run, compiler_options=COMPILE_QUICKLY)(*arrays)
    gone = {i for i, path in enumerate(flat_paths(outputs)[0]) if path in architecture.gone}
    return without(jax.tree.unflatten(jax.tree.structure(outputs), flat), gone)


def _check_seed(architecture: Architecture, outputs: Any) -> None:
    """The initializer must give the variables that the architecture was inferred from."""
    paths, leaves, _ = flat_paths(outputs)
    found: Mapping[str, Shape] = {p: tuple(x.shape) for p, x in zip(paths, leaves, strict=True)}
    for path, variable in architecture.variables.items():
        if path not in found:
            raise ArchitectureError(
                f"the initializer gives no variable {path!r}{near(path, found)}; "
                "is the architecture of another seed network?"
            )
        if found[path] != variable.shape:
            raise ArchitectureError(
                f"the initializer gives {path!r} the shape {list(found[path])}, the architecture's "
                f"seed has {list(variable.shape)}; is it of another seed network?"
            )
    for path in found:
        if path not in architecture.variables:
            raise ArchitectureError(
                f"the initializer gives a variable {path!r} that the architecture does not know"
                f"{near(path, architecture.variables)}"
            )
