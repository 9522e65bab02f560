"""Training steps, compiled by the chunk, and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from flax.training import train_state
from jaxtyping import Array, Float

from morph.errors import TrainingDivergedError
from morph.network import Network, Variables
from morph.training.augment import mixup
from morph.training.data import Batch
from morph.training.losses import Teacher
from morph.training.task import CROSS_ENTROPY, Loss, total
from regularizers.channels.graph import ChannelGraph
from regularizers.primitives.jaxprs import primitives as p

AUGMENT, MIXUP = 1, 2  # streams of a step's randomness besides the network's own


class TrainState(train_state.TrainState):
    """Flax's train state, with the collections beside `params` (batch statistics and the like).

    Attributes:
        collections: all variables but the parameters.
        ema: the exponential moving average of all variables; empty for none.
        teacher: the variables of the network that teaches this one; empty for none.
    """

    collections: Any = None
    ema: Any = struct.field(default_factory=dict)
    teacher: Any = struct.field(default_factory=dict)

    @property
    def variables(self) -> Variables:
        """All collections, as the network takes them."""
        return {"params": self.params, **self.collections}

    @property
    def learned(self) -> Variables:
        """What is worth evaluating and keeping: the average, if there is one."""
        return self.ema or self.variables

    @classmethod
    def of(
        cls,
        network: Network,
        variables: Variables,
        tx: optax.GradientTransformation,
        *,
        averages: bool = False,
        teacher: Variables | None = None,
    ) -> TrainState:
        """A state at step 0."""
        collections = {name: value for name, value in variables.items() if name != "params"}
        return cls.create(
            apply_fn=network.forward,
            params=variables["params"],
            tx=tx,
            collections=collections,
            ema=jax.tree.map(jnp.copy, dict(variables)) if averages else {},
            teacher=teacher or {},
        )


class Step(Protocol):
    """Several training steps in one call."""

    def __call__(
        self, state: TrainState, data: Batch | None, chunk: Any, key: Any
    ) -> tuple[TrainState, Any]:
        """Takes the steps of a chunk.

        Args:
            state: where training is; it is donated.
            data: the whole set, on the device; None if the chunk has the batches themselves.
            chunk: int [k, batch], which examples each step takes; or a `Batch` of [k, batch, ...].
            key: of the phase; with the step number it makes the randomness of each step.

        Returns:
            The state after, and the loss of each step, [k]; of a loss of several terms each of
            them by name.
        """
        ...


# Of a state, a batch and a random key: from params to the loss, and its terms and the updates.
Objective: TypeAlias = Callable[[TrainState, Batch, Any], Callable[[Any], Any]]


def make_objective(
    loss: Loss | None = CROSS_ENTROPY,
    *,
    augment: Callable[[Any, Batch], Batch] | None = None,
    mixup_alpha: float = 0.0,
    precision: str = "float32",
    teacher: Teacher | None = None,
) -> Objective:
    """What a step minimises.

    Args:
        loss: `(outputs, batch) -> scalar`, or `{name: scalar}`; None if all comes from the teacher.
        augment: `(key, batch) -> batch`.
        mixup_alpha: of `augment.mixup`; 0 for none.
        precision: what the network computes in. The parameters, the collections, the loss and the
            optimizer stay in float32.
        teacher: of states that have its variables.
    """
    computing = jnp.dtype(precision)

    def of(state: TrainState, batch: Batch, own: Any) -> Callable[[Any], Any]:
        if augment is not None:
            batch = augment(jax.random.fold_in(own, AUGMENT), batch)
        targets: list[tuple[Any, Batch]] = [(1.0, batch)]
        if mixup_alpha:
            x, other, share = mixup(jax.random.fold_in(own, MIXUP), batch.x, batch.y, mixup_alpha)
            targets = [(share, Batch(x, batch.y)), (1.0 - share, Batch(x, other))]
        x = _cast(targets[0][1].x, computing)

        def minimised(params: Any) -> tuple[Float[Array, ""], tuple[Any, Variables]]:
            variables = {"params": _cast(params, computing), **state.collections}
            outputs, updates = state.apply_fn(variables, x, own)
            outputs = _cast(outputs, jnp.float32)
            taught = None
            if teacher is not None and state.teacher:
                said = teacher.predict(_cast(state.teacher, computing), x)
                taught = teacher.loss(outputs, _cast(said, jnp.float32))
            terms = _terms(loss, outputs, targets, teacher, taught)
            return total(terms), (terms, updates)

        return minimised

    return of


def make_step(
    objective: Objective | None = None,
    *,
    looped: bool = True,
    ema_decay: float = 0.0,
    laid: Callable[[TrainState], TrainState] = lambda state: state,
) -> Step:
    """The compiled training step.

    Args:
        objective: what is minimised; that of cross entropy if None.
        looped: compile a chunk as one program, a scan over its steps; see `loops_well`. Otherwise
            its steps are dispatched one by one.
        ema_decay: of the average of states that keep one.
        laid: constrains where the arrays of a state lie.
    """
    objective = objective or make_objective()

    def one(state: TrainState, data: Batch | None, piece: Any, key: Any) -> tuple[TrainState, Any]:
        own = jax.random.fold_in(key, state.step)
        minimised = objective(state, piece if data is None else data.rows(piece), own)
        (_, (terms, updates)), grads = jax.value_and_grad(minimised, has_aux=True)(state.params)
        state = state.apply_gradients(grads=grads)
        kept = {name: state.collections[name] for name in updates}
        updates = jax.tree.map(lambda new, old: _cast(new, old.dtype), updates, kept)
        state = state.replace(collections={**state.collections, **updates})
        if state.ema:
            decay = jnp.minimum(ema_decay, state.step / (state.step + 9.0))
            state = state.replace(ema=_averaged(state.ema, state.variables, decay))
        return laid(state), terms

    @partial(jax.jit, donate_argnums=0)
    def scanned(
        state: TrainState, data: Batch | None, chunk: Any, key: Any
    ) -> tuple[TrainState, Any]:
        return jax.lax.scan(lambda state, piece: one(state, data, piece, key), state, chunk)

    @partial(jax.jit, donate_argnums=0)
    def nth(
        state: TrainState, data: Batch | None, chunk: Any, i: Any, key: Any
    ) -> tuple[TrainState, Any]:
        return one(state, data, jax.tree.map(lambda leaf: leaf[i], chunk), key)

    def dispatched(
        state: TrainState, data: Batch | None, chunk: Any, key: Any
    ) -> tuple[TrainState, Any]:
        losses = []
        for i in range(len(jax.tree.leaves(chunk)[0])):
            state, terms = nth(state, data, chunk, np.int32(i), key)
            losses.append(terms)
        return state, jax.tree.map(lambda *each: jnp.stack(each), *losses)

    return scanned if looped else dispatched


def _terms(
    loss: Loss | None,
    outputs: Any,
    targets: list[tuple[Any, Batch]],
    teacher: Teacher | None,
    taught: Any,
) -> Any:
    """The terms of the objective: of the labels, blended as the targets are, and of the teacher."""
    if loss is None:
        assert taught is not None  # it was checked that there is one in every phase
        return taught
    found = [loss(outputs, batch) for _, batch in targets]

    def blended(*values: Any) -> Any:
        shared = zip(targets, values, strict=True)
        return jnp.stack([share * value for (share, _), value in shared]).sum()

    terms = jax.tree.map(blended, *found)
    if teacher is None or taught is None:
        return terms
    own_share = 1.0 - teacher.weight
    if isinstance(terms, Mapping):
        own = {name: own_share * term for name, term in terms.items()}
        return {**own, "distill": teacher.weight * taught}
    return own_share * terms + teacher.weight * taught


def _cast(tree: Any, dtype: Any) -> Any:
    """The floating-point leaves of a tree in another type."""

    def cast(leaf: Any) -> Any:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def _averaged(ema: Any, variables: Any, decay: Any) -> Any:
    """One step of an exponential moving average; it forgets what is no floating-point number.

    A parameter that is exactly zero was pulled there: it is zero in the average, too, so that what
    is evaluated is as sparse as what is trained.
    """

    def average(old: Any, new: Any) -> Any:
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        return jnp.where(new == 0.0, new, decay * old + (1.0 - decay) * new)

    return jax.tree.map(average, ema, variables)


def loops_well(graph: ChannelGraph) -> bool:
    """Whether a scan over training steps is as fast as single steps.

    XLA's CPU backend runs a convolution inside a loop without its threaded library: a chunk of
    ResNet-8 steps took 5.7 times as long as its steps one by one, one of an MLP 0.8 times.
    """
    convolves = any(o.primitive is p.conv_general_dilated_p for o in graph.operations)
    return jax.default_backend() != "cpu" or not convolves


def check_finite(value: float, *, step: int, phase: str) -> None:
    """Raises if a loss is not finite.

    Raises:
        TrainingDivergedError: with the step and what to try.
    """
    if not np.isfinite(value):
        raise TrainingDivergedError(
            f"the loss is {value} at step {step} of phase {phase!r}. Try a smaller learning rate, "
            "a longer warm-up, gradient clipping, or look for NaN and huge values in the data."
        )
