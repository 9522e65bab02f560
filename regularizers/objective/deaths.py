"""A word for whoever gives a strength by hand, when it kills a group of channels as a whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.channels.parts import layer_name
from regularizers.errors import DeadGroupWarning
from regularizers.objective.regularizer import NetworkRegularizer

MOST_LAYERS = 3  # that a message names

# (strengths by group, the strength in force, the step) -> nothing; within compiled code, too
Watch = Callable[[Mapping[str, Any], Any, Any], None]


def watch_of(regularizer: NetworkRegularizer) -> Watch:
    """What warns of each group once, when none of its channels is left.

    Groups in blocks that may go are not watched: they die with their block.

    Args:
        regularizer: of the network.
    """
    in_blocks = {name for block in regularizer.measures.blocks for name in block.groups}
    thresholds = {n: t for n, t in regularizer.thresholds.items() if n not in in_blocks}
    told: set[str] = set()

    def tell(dead: Mapping[str, Any], strength: Any, step: Any) -> None:
        for name in sorted(name for name, flag in dead.items() if np.any(flag)):
            if name not in told:
                told.add(name)
                warnings.warn(
                    _message(regularizer, name, float(strength), int(step)),
                    DeadGroupWarning,
                    stacklevel=2,
                )

    def watch(strengths: Mapping[str, Any], strength: Any, step: Any) -> None:
        dead = {n: jnp.all(strengths[n] <= t) for n, t in thresholds.items() if n in strengths}
        if not dead:
            return
        jax.lax.cond(
            jnp.stack(list(dead.values())).any(),
            lambda: jax.debug.callback(tell, dead, strength, step),
            lambda: None,
        )

    return watch


def _message(regularizer: NetworkRegularizer, name: str, strength: float, step: int) -> str:
    group = regularizer.graph.groups[name]
    made = [m for m in group.members if m.produces and m.kind != "statistic"]
    layers = list(dict.fromkeys(layer_name(m.path) for m in made))
    more = f" and {len(layers) - MOST_LAYERS} more" if len(layers) > MOST_LAYERS else ""
    return (
        f"all {group.width} channels of the group {name!r} (layers "
        f"{', '.join(map(repr, layers[:MOST_LAYERS]))}{more}) are dead at step {step}, under a "
        f"strength of {strength:g}: what they computed is zero from now on, and what depends on it "
        "alone learns nothing more. Start again with a smaller strength, or with a budget in its "
        "place, which never takes a whole group: morph.Budget(regularizer, '50%', steps=...)."
    )
