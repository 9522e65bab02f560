"""Runs side by side: what one controller sees and decides stays with its own run."""

from types import SimpleNamespace
from typing import NamedTuple

import flax.struct
import jax.numpy as jnp
import numpy as np

from morph.cycle.watch import Watch


class Opt(NamedTuple):
    strength: object
    protected: object
    held: object
    saliency: object


@flax.struct.dataclass
class State:
    params: object
    opt_state: Opt


class Doubling:
    """Doubles its strength at every look, and keeps what it was shown."""

    def __init__(self):
        self.shown = []

    def initial_strength(self, strengths):
        return float(strengths["a"].sum())

    def look(self, step, strengths, strength, saliency):
        self.shown.append((step, strengths["a"], strength, saliency["a"]))
        decided = {"strength": jnp.asarray(2 * strength), "protected": {}, "held": {}}
        told = lambda state: state._replace(**decided)  # noqa: E731
        return SimpleNamespace(strength=2 * strength, obeyed=told)


def test_each_controller_sees_its_own_run_and_its_own_last_strength():
    a, saliency = jnp.arange(21.0).reshape(3, 7), -jnp.arange(15.0).reshape(3, 5)
    state = State({"a": a}, Opt(jnp.zeros(3), {}, {}, {"a": saliency}))
    controllers = [Doubling() for _ in range(3)]
    pulling = SimpleNamespace(strengths_of_all=lambda params: params)
    watch = Watch.of(controllers, pulling, [{"a": row} for row in np.asarray(a)])
    first = np.asarray(a).sum(1)
    state, looks = watch.look(state, 0)
    np.testing.assert_array_equal(state.opt_state.strength, 2 * first)
    state, looks = watch.look(state, 10)
    np.testing.assert_array_equal(state.opt_state.strength, 4 * first)
    assert [look.strength for look in looks] == (4 * first).tolist()
    for i, controller in enumerate(controllers):
        assert [(step, force) for step, _, force, _ in controller.shown] == [
            (0, first[i]),
            (10, 2 * first[i]),
        ]
        for _, seen, _, felt in controller.shown:
            np.testing.assert_array_equal(seen, a[i])
            np.testing.assert_array_equal(felt, saliency[i])
    for own, expected in zip(watch.saliency(state), saliency, strict=True):
        np.testing.assert_array_equal(own["a"], expected)
