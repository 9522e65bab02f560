"""The fixed-point network whose predictions are closest to the float network's."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from morph.compress.bias_correction import bias_corrected
from morph.compress.fixed_point import CRITERIA, equalized
from morph.compress.plan import FixedPointPlan, WordLength, fixed_point_plan
from morph.training.losses import LabelLoss, soft_labels
from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import FUNCTION, INPUTS, checked


class Closest(NamedTuple):
    """What was found.

    Attributes:
        plan: of precisions.
        variables: float; equalized or not, with corrected biases.
        equalized: whether they are; then they are the same function in evaluation mode only.
    """

    plan: FixedPointPlan
    variables: Any
    equalized: bool


@checked(predict=FUNCTION, graph=GRAPH, x=INPUTS, distance=FUNCTION)
def closest(
    predict: Callable[[Any, Any], Any],
    graph: ChannelGraph,
    variables: Any,
    x: Any,
    *,
    word_length: WordLength = 8,
    distance: LabelLoss = soft_labels,
) -> Closest:
    """Of all criteria of dynamic precision, equalized and not, biases corrected: the closest.

    That is, of logits, the least Kullback-Leibler divergence of its class probabilities from the
    float network's, on the calibration set. No labels are needed.

    Args:
        predict: `(variables, x) -> outputs`, in evaluation mode.
        graph: of it, traced with `x`.
        variables: float.
        x: the calibration set, [N, ...], or a tree of such arrays.
        word_length: see `fixed_point_plan`.
        distance: `(outputs, exact outputs) -> scalar`.

    Raises:
        ValueError: as `fixed_point_plan` does.

    Example:
        >>> plan, own, _ = closest(model.apply, graph, variables, x)     # doctest: +SKIP
        >>> logits = jax.jit(plan.simulated(model.apply))(own, images)   # doctest: +SKIP
    """
    graph.leaves(variables)  # or it says what does not fit
    exact = predict(variables, x)
    equal = equalized(graph, variables)
    calibration = jax.tree.leaves(x)
    same = all(map(operator.is_, jax.tree.leaves(equal), jax.tree.leaves(variables)))
    best: tuple[float, Closest] | None = None
    for start in (variables,) if same else (variables, equal):
        for criterion in CRITERIA:
            plan = fixed_point_plan(
                graph, start, calibration, word_length=word_length, criterion=criterion
            )
            own = bias_corrected(graph, plan, start, calibration)
            away = float(distance(plan.simulated(predict)(own, x), exact))
            if best is None or away < best[0]:
                best = away, Closest(plan, own, start is not variables)
    assert best is not None
    return best[1]
