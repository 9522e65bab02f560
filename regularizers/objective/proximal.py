"""The proximal form: an optax optimizer that makes channels exactly zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from regularizers.channels.calls import flat_paths
from regularizers.checks import FUNCTION, OPTIMIZER, a, checked, number, whole
from regularizers.errors import InputError
from regularizers.objective.deaths import watch_of
from regularizers.objective.frozen import frozen_paths
from regularizers.objective.norms import is_half
from regularizers.objective.pulling import Owed, nothing_owed, now_owed
from regularizers.objective.regularizer import NetworkRegularizer
from regularizers.objective.sums import Sums

MEMORY = 0.97  # of the average of squared derivatives, per step
LONGEST = 5  # steps that one measurement stands for in it: of fewer it would be an average of few


class ProximalState(NamedTuple):
    """The state of the wrapped optimizer, and what a budget controller may set between steps.

    Attributes:
        inner: the wrapped optimizer's state.
        steps: steps so far; with `optax.MultiSteps` inside, those that changed the parameters.
        strength: the strength in force; kept up by the schedule if one was given.
        protected: channels that are not pulled to zero, by group.
        held: channels that stay zero, by group.
        saliency: of every channel, by group: the average square of the loss's derivative by a
            factor on it (Molchanov et al. 2019, with gates), over the last steps; none of gates.
        owed: what is left of the pull on parameters in half precision, whose numbers are too
            coarse to take it at once; empty where there are none.
    """

    inner: Any
    steps: Int[Array, ""]
    strength: Float[Array, ""]
    protected: dict[str, Bool[Array, " width"]]
    held: dict[str, Bool[Array, " width"]]
    saliency: dict[str, Float[Array, " width"]]
    owed: Owed


@checked(
    optimizer=OPTIMIZER,
    regularizer=a(NetworkRegularizer, "a reg.NetworkRegularizer"),
    strength=number(least=0.0) | FUNCTION,
    decay=number(least=0.0, below=1.0) | FUNCTION,
    every=whole(least=1),
    saliency_from=whole(least=0),
)
def proximal(
    optimizer: optax.GradientTransformation,
    regularizer: NetworkRegularizer,
    strength: float | Float[Array, ""] | Callable[[Any], Any] = 1e-2,
    decay: float | Callable[[Any], Any] | None = None,
    every: int = 1,
    saliency_from: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that each update ends with a group soft-threshold.

    After the optimizer's own update every channel's strength falls by strength x marginal cost;
    what would fall below zero becomes exactly zero, so that shrinking changes the function by
    nothing but rounding (forward-backward splitting, Combettes and Wajs 2005).

    Parameters in bfloat16 and float16 are pulled as much as those in float32: what rounding does
    not take is kept in the state. Groups that are made of parameters which the optimizer freezes
    (`optax.set_to_zero`), or does not see (`optax.masked`, `optax.partition` around this), are not
    pulled. With `optax.MultiSteps` inside, only the steps that change the parameters pull, as
    if it were around. Integer leaves stay as they are, also where their gradients are `float0`.

    Args:
        optimizer: any optax transformation.
        regularizer: measures strengths and marginal costs.
        strength: per step, dimensionless; a number or a schedule of the step.
        decay: also let channels decay, the faster the weaker they are (see `decay`): the share that
            the weakest of a group loses per step; a number, a schedule of the step, or None. What
            is pulled is then measured before the optimizer's update, and dead channels stay dead.
        every: pull, decay and measure saliency only at every so many steps, as much as in all of
            them: that is cheaper. Channels that are held at zero stay there at every step.
        saliency_from: the first step that saliency is measured at; before, it is zero.

    Returns:
        An optax transformation; `update` needs `params`. A strength that is given by hand warns
        (`DeadGroupWarning`) once a whole group of channels is dead; one of 0 is left to who sets
        it in the state, as `morph.Budget` does, so as to reach a budget.

    Raises:
        TypeError: if the first two are not what they should be.
        ValueError: from `init` and `update`, if all groups are frozen or masked; from `update`
            without `params`, or with the state of another network, e.g. before it was shrunk.

    Example:
        >>> tx = proximal(optax.sgd(0.1), regularizer, strength=1e-2)  # doctest: +SKIP
    """
    wrapped = optax.with_extra_args_support(optimizer)
    known: dict[Hashable, frozenset[str]] = {}  # what is frozen, by the structure of parameters
    watch = None if _is_none(strength) else watch_of(regularizer)

    def init(params: Any) -> ProximalState:
        first = strength(0) if callable(strength) else strength
        seen = _seen(regularizer, params)
        if decay is not None:
            _check_decays(seen, params)
        none = {g.group: jnp.zeros(g.width, bool) for g in regularizer.groups}
        return ProximalState(
            _of_floats(wrapped, params).init(params),
            jnp.zeros((), jnp.int32),
            jnp.asarray(first, jnp.float32),
            none,
            jax.tree.map(jnp.copy, none),
            {g.group: jnp.zeros(g.width) for g in regularizer.groups if g.pull.scaled},
            nothing_owed(seen.measures, params),
        )

    def update(
        updates: Any, state: ProximalState, params: Any = None, **extra: Any
    ) -> tuple[Any, ProximalState]:
        if params is None:
            raise InputError("proximal needs the parameters: call update(grads, state, params)")
        check_state(state, regularizer)
        seen, inner_tx, gradients = _seen(regularizer, params), _of_floats(wrapped, params), updates

        def run(gradients: Any, inner: Any, params: Any) -> tuple[Any, Any]:
            moves, inner = inner_tx.update(gradients, inner, params, **extra)
            return jax.tree.map(_of_its_kind, moves, params), inner

        updates, inner = run(gradients, state.inner, params)
        key = jax.tree.structure((params, state.inner))
        if key not in known:
            found = frozen_paths(lambda *given: run(*given)[0], gradients, state.inner, params)
            known[key] = frozenset(map(seen.measures.full, found))
        active = seen.without(known[key]) if known[key] else seen
        updates = jax.tree.map(_stay_dead, updates, gradients, params, regularizer.resting(params))
        now = strength(state.steps) if callable(strength) else state.strength
        due = jnp.asarray(_due(state.inner, inner))
        laid, sums = active.measures.laid, active.measures.sums
        params, gradients = laid(params), laid(gradients)
        moved = laid(optax.apply_updates(params, updates))
        turn = due & ((state.steps + 1) % every == 0)
        count = jnp.where(turn, float(every), 0.0)  # steps that this one pulls for
        held = jnp.stack([flags.any() for flags in state.held.values()]).any()

        # All scales, and all is measured before the update: so it makes one pass with it.
        early = decay is not None and all(g.pull.scaled for g in active.groups)

        pulls = (now > 0.0) | held

        def measure(here: Any, gradients: Any) -> tuple[Any, Any, Any]:
            def first(sums: Sums) -> tuple[Any, Any, Any]:
                own = active.summed(sums)

                def only_if(flag: Any, make: Callable[..., Any], *given: Any) -> Any:
                    zeros = partial(_zeros, make, active, *given)
                    return sums.only_if(flag, partial(make, own, *given), zeros)

                slopes = only_if(state.steps >= saliency_from, _slopes, params, gradients)
                then, at, by = sums.after((here, params, gradients))
                if decay is None:
                    return slopes, _strengths(own, then, at), None
                weights = own.weigh(then, at, by, known[key])
                return slopes, only_if(pulls, _strengths, then, at), weights

            slopes, strengths, weights = sums.together(first)
            pull = partial(pulled, here, strengths)
            if decay is None:
                return None, pull(), slopes
            rate = decay(state.steps) if callable(decay) else decay
            decaying = active.find_decay(1.0 - (1.0 - rate) ** count, weights)

            def idle() -> Any:
                return jax.eval_shape(pull).idle(active.measures, here)

            return decaying, sums.only_if(pulls, pull, idle), slopes

        def pulled(here: Any, strengths: Any) -> Any:
            factors, left = active.factors(
                here,
                now * count,
                state.protected,
                state.held,
                owed=state.owed,
                measured=strengths,
            )
            if watch is not None:
                watch(left, now, state.steps)
            return factors

        def leave(here: Any, gradients: Any) -> tuple[Any, Any, Any]:
            decaying, factors, slopes = jax.eval_shape(measure, here, gradients)
            ones = jax.tree.map(jnp.ones_like, decaying)
            return ones, factors.idle(active.measures, here), jax.tree.map(jnp.zeros_like, slopes)

        # What is small is measured in turns, and applied at all steps.
        works, here = jnp.asarray(True), params if early else moved
        if every == 1:
            decaying, factors, slopes = measure(here, gradients)
        else:
            works = turn | held
            found = jax.lax.cond(works, measure, leave, here, gradients)
            decaying, factors, slopes = sums.whole(found)
        if decaying is not None:
            moved = active.decayed(moved, decaying, known[key])
        wide = active.applied(moved, factors)
        # p + (q - p) is exactly 0 where q is 0, so that dead stays dead to the last bit.
        updates = jax.tree.map(lambda q, p: q.astype(jnp.result_type(p)) - p, wide, params)
        after = now_owed(seen.measures, optax.apply_updates(params, updates), wide)
        memory = MEMORY ** min(every, LONGEST)
        return updates, ProximalState(
            inner,
            state.steps + jnp.asarray(due, jnp.int32),
            jnp.asarray(now, jnp.float32),
            state.protected,
            state.held,
            {
                name: jnp.where(
                    works, memory * old + (1.0 - memory) * jnp.square(slopes[name]), old
                )
                if name in slopes
                else old
                for name, old in state.saliency.items()
            },
            jax.tree.map(lambda new, old: jnp.where(works, new, old), after, state.owed),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _slopes(regularizer: NetworkRegularizer, params: Any, gradients: Any) -> Any:
    return regularizer.slopes(params, gradients)


def _strengths(regularizer: NetworkRegularizer, variables: Any, before: Any) -> Any:
    return regularizer.measures.measured(variables, before)


def _zeros(make: Callable[..., Any], *given: Any) -> Any:
    """Zeros in place of what is made."""
    return jax.tree.map(jnp.zeros_like, jax.eval_shape(partial(make, *given)))


def _is_none(strength: Any) -> bool:
    """Whether a strength is left to whoever sets it in the state."""
    return isinstance(strength, Real) and strength == 0.0


def _seen(regularizer: NetworkRegularizer, params: Any) -> NetworkRegularizer:
    """The regularizer of the groups whose parameters are there: others may be masked."""

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    if not any(map(is_masked, jax.tree.leaves(params, is_leaf=is_masked))):
        return regularizer
    marked = jax.tree.map(lambda n: "masked" if is_masked(n) else n, params, is_leaf=is_masked)
    paths, leaves, _ = flat_paths(marked)
    full = regularizer.measures.full
    return regularizer.without(
        {full(p) for p, leaf in zip(paths, leaves, strict=True) if isinstance(leaf, str)}
    )


def _check_decays(regularizer: NetworkRegularizer, params: Any) -> None:
    """Raises an InputError if parameters that are to decay are too coarse for it."""
    paths, leaves, _ = flat_paths(params)
    for path, leaf in zip(map(regularizer.measures.full, paths), leaves, strict=True):
        if path in regularizer.decaying and is_half(leaf):
            raise InputError(
                f"{path!r} is in {leaf.dtype}, in which the small share that decays at a step is "
                "rounded away; keep the parameters in float32 and cast them where the model "
                "computes, or pull by a strength instead"
            )


def _of_floats(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """The optimizer, blind to integer leaves, which have no derivative."""
    if all(map(_is_float, jax.tree.leaves(params))):
        return optimizer
    return optax.masked(optimizer, lambda tree: jax.tree.map(_is_float, tree))


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def _of_its_kind(update: Any, parameter: Any) -> Any:
    """No update of an integer leaf."""
    return update if _is_float(parameter) else jnp.zeros_like(parameter)


def _due(before: Any, after: Any) -> Any:
    """Whether the step that led from one state to the other changed the parameters.

    Raises:
        InputError: if several `optax.MultiSteps` are inside, which have steps of their own.
    """

    def counts(tree: Any) -> list[Any]:
        nodes = jax.tree.leaves(tree, is_leaf=lambda n: isinstance(n, optax.MultiStepsState))
        return [n.gradient_step for n in nodes if isinstance(n, optax.MultiStepsState)]

    steps = list(zip(counts(before), counts(after), strict=True))
    if len(steps) > 1:
        raise InputError(
            f"proximal wraps {len(steps)} optax.MultiSteps, which change the parameters at "
            "different times; put one around instead: optax.MultiSteps(reg.proximal(...), every)."
        )
    return steps[0][1] > steps[0][0] if steps else True


def check_state(state: ProximalState, regularizer: NetworkRegularizer) -> None:
    """Raises a ValueError if a state is of another network than the regularizer."""
    found = {name: np.shape(flags)[-1] for name, flags in state.protected.items()}
    wanted = {g.group: g.width for g in regularizer.groups}
    if found != wanted:
        odd = min(found.items() ^ wanted.items())[0]
        raise InputError(
            f"the optimizer's state is of another network: group {odd!r} has width "
            f"{found.get(odd, 'none')} in it, and {wanted.get(odd, 'none')} here. After shrinking "
            "go on with architecture.take(state), or start again with tx.init(params)."
        )


def _stay_dead(update: Any, gradient: Any, parameter: Any, resting: float) -> Any:
    """Stale momentum does not wake a dead channel; only a gradient does."""
    if math.isnan(resting):
        return update
    return jnp.where((parameter == resting) & (gradient == 0.0), jnp.zeros_like(update), update)
