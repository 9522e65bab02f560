"""Stochastic logistic-sigmoid gates: one logit per channel says how likely the channel is open.

    in training    gate = sigmoid((logit + logistic noise) / temperature)
    in evaluation  gate = 1 if logit > 0 else 0

The gate is open (above 1/2) with probability sigmoid(logit) at any temperature; that probability is
what the penalty pulls on. All members of a group share one logit vector, which lies beside the
parameters: `params["gates"][group]`.

A gate multiplies variables, so that any model can be gated without touching its code. It multiplies
the *last* producers of its group that suffice to silence it (`silencers`): scaling a kernel that a
batch norm follows does nothing in train mode, and scaling several producers in a row would apply
the gate several times.

Sources: Maddison et al. 2016, "The concrete distribution" (binary case); Louizos et al. 2017,
"Learning sparse neural networks through L0 regularization"; straight-through: Bengio et al. 2013.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from regularizers.channels.graph import ChannelGraph
from regularizers.errors import InputError
from regularizers.objective.slices import Slices, scaled, slices_of

NAME = "gates"  # of the sub-tree of the parameters
CLOSED = -30.0  # at this logit a gate is shut for good: its probability counts as exactly zero
INITIAL = 3.0  # open with probability 0.95
OPEN_SHARE = 0.5  # a gate more probable than this is open in evaluation


def init(
    graph: ChannelGraph, groups: Collection[str] | None = None, logit: float = INITIAL
) -> dict[str, Float[Array, " width"]]:
    """Logits for some groups, all equal.

    Args:
        graph: the channel graph of the network.
        groups: which; all exact groups that can be silenced if not given.
        logit: of every gate; sigmoid(logit) is the probability that it is open.

    Returns:
        For each group float [width]; goes to `variables["params"]["gates"]` (to
        `variables["gates"]` where the variables have no collections).

    Raises:
        ValueError: if a group cannot be gated.
    """
    names = silencers(graph, groups)
    return {name: jnp.full(graph.groups[name].width, logit, jnp.float32) for name in names}


def probability(logits: Float[Array | np.ndarray, "*n"]) -> Float[Array, "*n"]:
    """The probability that a gate is open; exactly zero for one that is shut for good."""
    return jnp.where(logits > CLOSED, jax.nn.sigmoid(logits), 0.0)


def logits_of(probability: Float[Array, " n"]) -> Float[Array, " n"]:
    """The inverse of `probability`, in float32's range; `CLOSED` at zero."""
    p = jnp.clip(probability, 1e-12, 1.0 - 1e-7)
    return jnp.where(probability > 0.0, jnp.log(p) - jnp.log1p(-p), CLOSED)


def is_open(logits: Float[Array, " n"]) -> Bool[Array, " n"]:
    """Which gates are open in evaluation: those that are more probably open than shut."""
    return logits > 0.0


def sample(
    key: Any,
    logits: Float[Array, " n"],
    temperature: Any = 1.0,
    *,
    straight_through: bool = False,
) -> Float[Array, " n"]:
    """Gates as they are in training, 0 to 1.

    Args:
        key: a JAX random key.
        logits: of the gates.
        temperature: of the relaxation; the lower, the closer the gates are to 0 and 1, and the
            larger the variance of the gradient.
        straight_through: 0 or 1 forward, with the gradient of the relaxed gate.
    """
    noisy = logits + jax.random.logistic(key, logits.shape, logits.dtype)
    gates = jax.nn.sigmoid(noisy / temperature)
    if straight_through:
        gates += jax.lax.stop_gradient((noisy > 0.0).astype(gates.dtype) - gates)
    return jnp.where(logits > CLOSED, gates, 0.0)


def annealed(start: float, end: float, steps: int) -> Callable[[Any], Any]:
    """A temperature that falls geometrically from `start` to `end` in `steps`, and stays there."""
    return lambda step: start * (end / start) ** jnp.clip(step / max(1, steps), 0.0, 1.0)


def silencers(
    graph: ChannelGraph, groups: Collection[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """For each group the trained variables that a gate multiplies.

    In the order of the function every producer is left out whose zeros are not needed for a dead
    channel to be exactly zero where it is consumed. What stays is a batch norm's scale and shift
    rather than the kernel before it, a depthwise kernel rather than the pointwise one before it,
    all addends of a residual stream; and each path of a value meets its gate once.

    Raises:
        ValueError: if a group was asked for that its trained producers cannot silence.
    """
    wanted = [g.name for g in graph.groups.values() if g.exact] if groups is None else [*groups]
    producers = {name: _producers(graph, name) for name in wanted}
    silent = graph.exact_with_own(producers)
    needed = {name: paths for name, paths in producers.items() if name in silent}
    if groups is not None and len(needed) < len(wanted):
        name = next(name for name in wanted if name not in needed)
        raise InputError(
            f"group {name!r} cannot be gated: no trained variable makes its channels exactly zero "
            "(e.g. a norm without scale and shift comes last). Use another penalty for it."
        )
    # Groups do not depend on one another, so that one pass tries a producer of each of them.
    for i in range(max(map(len, needed.values()), default=0)):
        fewer = {
            name: tuple(path for path in paths if path != producers[name][i])
            for name, paths in needed.items()
            if i < len(producers[name])
        }
        needed |= {name: fewer[name] for name in graph.exact_with_own(fewer)}
    return {name: paths for name, paths in needed.items() if paths}


def _producers(graph: ChannelGraph, name: str) -> tuple[str, ...]:
    members = graph.groups[name].members
    found = (m.path for m in members if m.produces and graph.variables[m.path].trained)
    return tuple(dict.fromkeys(found))


def gated(
    fn: Callable[..., Any], graph: ChannelGraph, groups: Collection[str] | None = None
) -> Callable[..., Any]:
    """A function whose channels are gated.

    Args:
        fn: `fn(variables, *inputs, **options)`, from which `graph` was traced (in another mode, it
            may be).
        graph: its channel graph.
        groups: which are gated; all that can be if not given.

    Returns:
        A function of variables that hold logits as `init` makes them, and else what `fn` takes; and
        `gate_key=`, `temperature=` and `straight_through=`, see `sample`. Without a key it is
        deterministic: every gate is 0 or 1.

    Example:
        >>> net = gated(model.apply, graph)                                  # doctest: +SKIP
        >>> params = {**variables["params"], "gates": init(graph)}            # doctest: +SKIP
        >>> net({"params": params}, x, gate_key=key, temperature=0.5)         # doctest: +SKIP
    """
    slices = slices_of(graph, silencers(graph, groups))

    def gated_fn(
        variables: Any,
        *inputs: Any,
        gate_key: Any = None,
        temperature: Any = 1.0,
        straight_through: bool = False,
        **options: Any,
    ) -> Any:
        rest, logits = split(graph, variables)
        if gate_key is None:
            gates = {name: is_open(own).astype(own.dtype) for name, own in logits.items()}
        else:
            gates = {
                name: sample(
                    jax.random.fold_in(gate_key, i),
                    own,
                    temperature,
                    straight_through=straight_through,
                )
                for i, (name, own) in enumerate(sorted(logits.items()))
            }
        return fn(_multiplied(graph, rest, slices, gates), *inputs, **options)

    return gated_fn


def fold(graph: ChannelGraph, variables: Any) -> Any:
    """The variables without logits: channels whose gate is shut have zero producers.

    `fn(fold(graph, variables), ...)` equals `gated(fn, graph)(variables, ...)`; shrinking and
    `compact` then go on as without gates.
    """
    rest, logits = split(graph, variables)
    return graph.mask(rest, {name: np.asarray(is_open(own)) for name, own in logits.items()})


def path_of(graph: ChannelGraph, group: str) -> str:
    """The path of a group's logits in the variables."""
    return f"{'params/' if _has_params(graph) else ''}{NAME}/{group}"


def split(graph: ChannelGraph, variables: Any) -> tuple[Any, dict[str, Any]]:
    """The variables without logits, and the logits.

    Raises:
        ValueError: if there are none, or they do not fit.
    """
    within = variables["params"] if _has_params(graph) else variables
    rest = {name: value for name, value in within.items() if name != NAME}
    logits = within.get(NAME, {})
    if not logits:
        raise InputError(
            "the variables hold no gates: put gates.init(graph) into params['gates'] first"
        )
    for name, own in logits.items():
        width = graph.widths.get(name)
        if (width,) != np.shape(own):
            raise InputError(
                f"the gates do not fit the graph: {name!r} has {list(np.shape(own))} logits, and "
                f"{f'width {width}' if width is not None else 'is no group'} there"
            )
    return ({**variables, "params": rest} if _has_params(graph) else rest), dict(logits)


def _has_params(graph: ChannelGraph) -> bool:
    return any(path.startswith("params/") for path in graph.variables)


def _multiplied(
    graph: ChannelGraph, variables: Any, slices: Slices, gates: Mapping[str, Any]
) -> Any:
    leaves, treedef = graph.leaves(variables)
    factors = {
        name: gates.get(name, np.ones(width, np.float32)) for name, width in graph.widths.items()
    }
    values = [
        scaled(graph, path, leaf, slices, factors) if path in slices else leaf
        for path, leaf in leaves.items()
    ]
    return jax.tree.unflatten(treedef, values)
