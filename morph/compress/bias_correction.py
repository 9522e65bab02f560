"""What rounding shifts on average, taken back in the biases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Float

from morph.compress.activations import floats, run_rounded
from morph.compress.fixed_point import rounded
from morph.compress.plan import FixedPointPlan, calibration_arrays
from morph.kernels.compressed import unpacked
from regularizers.channels.following import OUTPUTS, following
from regularizers.channels.graph import ChannelGraph
from regularizers.primitives.jaxprs import JaxprEqn


def bias_corrected(
    graph: ChannelGraph, plan: FixedPointPlan, variables: Any, calibration: Sequence[Any]
) -> Any:
    """The variables with biases that undo what a plan's rounding shifts on average.

    Rounded kernels and data give products whose mean over examples and positions is not the float
    network's; a relu or a batch norm hands that on. Layer after layer, each output channel's mean
    on the calibration set is made what it is in floating point, with all earlier layers rounded and
    corrected: by the bias that is added, or the running mean that a batch norm takes off. Layers
    without either stay as they are. (Nagel et al. 2019, "Data-free quantization through weight
    equalization and bias correction", section 4.2; there the means are derived from batch norms.)

    Args:
        graph: of the function in evaluation mode.
        plan: for it.
        variables: of the plan; float.
        calibration: the inputs of the function, as arrays of the shapes that it was traced with.

    Returns:
        The variables; for evaluation with the plan.

    Raises:
        ValueError: if the calibration set is empty, does not fit or is not finite.
    """
    found, treedef = graph.leaves(unpacked(variables))
    arrays = calibration_arrays(graph, calibration)
    after = {path: one for path, one in following(graph).items() if one.bias}
    means: dict[str, Array] = {}

    def watch(use: str, path: str, eqn: JaxprEqn, side: int, pair: list[Any]) -> Any:
        y = floats(eqn, pair, (None, None))
        if path in after and not isinstance(y, jax.core.Tracer):
            means[path] = _mean(eqn, y)
        return y

    def correct(use: str, path: str, eqn: JaxprEqn, side: int, pair: list[Any]) -> Any:
        written = [plan.data.get(use), plan.data.get(use)]
        written[side] = None  # rounded already
        y = floats(eqn, pair, written)
        if path not in means:
            return y
        name, shift = after[path].bias, means[path] - _mean(eqn, y)
        old = found[name]
        new = old + (after[path].sign * shift.reshape(old.shape)).astype(old.dtype)
        found[name] = new
        if name in plan.weights:  # later layers see it rounded
            old, new = (rounded(bias, plan.weights[name]) for bias in (old, new))
        return y + after[path].sign * (new - old).reshape(shift.shape)

    start = dict(found)
    run_rounded(graph, start, arrays, {}, watch)
    run_rounded(graph, start, arrays, plan.weights, correct)
    return jax.tree.unflatten(treedef, list(found.values()))


def _mean(eqn: JaxprEqn, y: Array) -> Float[Array, "..."]:
    """Of every output channel; the other axes are 1."""
    channels = OUTPUTS[eqn.primitive](eqn)
    return y.mean([k for k in range(y.ndim) if k not in channels], keepdims=True)
