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
    """Tells twice what it was shown, and keeps it."""

    def __init__(self):
        self.shown = []

    def look(self, step, strengths, saliency):
        self.shown.append((step, strengths["a"], saliency["a"]))
        strength = 2 * float(strengths["a"].sum())
        decided = {"strength": jnp.asarray(strength), "protected": {}, "held": {}}
        told = lambda state: state._replace(**decided)  # noqa: E731
        return SimpleNamespace(strength=strength, obeyed=told)


def test_each_controller_sees_its_own_run_alone():
    a, saliency = jnp.arange(21.0).reshape(3, 7), -jnp.arange(15.0).reshape(3, 5)
    state = State({"a": a}, Opt(jnp.zeros(3), {}, {}, {"a": saliency}))
    controllers = [Doubling() for _ in range(3)]
    budgets = [SimpleNamespace(controller=own, cuts=lambda step: False) for own in controllers]
    cuts = [SimpleNamespace(budget=budget) for budget in budgets]
    pulling = SimpleNamespace(strengths_of_all=lambda params: params)
    watch = Watch(cuts=cuts, pulling=pulling)
    expected = 2 * np.asarray(a).sum(1)
    for step in (0, 10):
        state, looks = watch.look(state, step)
        np.testing.assert_array_equal(state.opt_state.strength, expected)
        assert [look.strength for look in looks] == expected.tolist()
    for i, controller in enumerate(controllers):
        assert [step for step, _, _ in controller.shown] == [0, 10]
        for _, seen, felt in controller.shown:
            np.testing.assert_array_equal(seen, a[i])
            np.testing.assert_array_equal(felt, saliency[i])
    for own, expected in zip(watch.saliency(state), saliency, strict=True):
        np.testing.assert_array_equal(own["a"], expected)
