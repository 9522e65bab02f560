"""Runs side by side are what they would be alone, and masked networks what they are compact."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from morph.architecture.expand import expand
from morph.cycle.config import CycleConfig
from morph.cycle.members import Member
from morph.cycle.sweep import Sweep
from morph.errors import BudgetError
from morph.network import linen_network
from morph.training.data import Batch
from morph.training.losses import cross_entropy
from morph.training.task import Task


class Net(nn.Module):
    """A hidden layer, added to what another one makes of it, with batch norm."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.gelu(nn.Dense(11)(x))
        y = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(7)(x)))
        x += nn.relu(nn.Dense(11)(y))
        return nn.Dense(3)(x)


def make_sweep(**changes):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200).astype(np.int32)
    x = (rng.normal(size=(200, 5)) + 2.0 * y[:, None] * np.arange(5) / 5).astype(np.float32)
    settings = {"seed_steps": 30, "shrink_steps": 60, "retrain_steps": 5, "batch_size": 40}
    config = CycleConfig(**settings, penalty="group_lasso", learning_rate=0.05, **changes)
    return Sweep(
        network=linen_network(Net()),
        train=Batch(x, y),
        test=Batch(x[:50], y[:50]),
        config=config,
        task=Task(loss=lambda logits, batch: {"nats": cross_entropy(logits, batch.y)}),
    )


@pytest.fixture(scope="module")
def sweep():
    return make_sweep()


@pytest.fixture(scope="module")
def trained(sweep):
    return {seed: one.variables for seed, one in enumerate(sweep.train_seeds([0, 1]))}


def assert_close(one, other, atol):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def test_runs_together_shrink_as_each_alone(sweep, trained):
    members = [Member(budget=b, seed=s) for b, s in ((0.7, 0), (0.3, 0), (0.3, 1))]
    pulling = sweep.pulling(trained[0])
    together = sweep.shrink(members, trained, pulling)
    for member, one in zip(members, together, strict=True):
        cost = sweep.outcome("shrunk", one, 90).cost / sweep.cost()
        assert 0.9 * member.budget < cost <= member.budget
        assert one.records[-1]["step"] == 60
        assert one.records[-1]["target_ratio"] == pytest.approx(member.budget)
    (alone,) = sweep.shrink(members[1:2], trained, pulling)
    assert alone.architecture.groups == together[1].architecture.groups
    assert alone.records[-1]["loss"] == pytest.approx(together[1].records[-1]["loss"], rel=1e-3)
    assert alone.records[-1]["loss_nats"] == alone.records[-1]["loss"]
    assert_close(alone.variables, together[1].variables, 1e-3)
    shapes = [jax.tree.leaves(jax.tree.map(np.shape, one.variables)) for one in together]
    assert shapes[0] != shapes[1]  # they are cut out, not masked


def test_masked_networks_train_as_compact_ones_and_the_others_alone(sweep):
    narrow, wide = sweep.uniform(0.5), expand(sweep.whole, sweep.cost, 2 * sweep.cost())
    assert 0.3 * sweep.cost() < sweep.cost(narrow.widths) <= 0.5 * sweep.cost()
    assert sweep.can_mask(narrow)
    assert not sweep.can_mask(wide)
    masked, at_its_widths = sweep.retrain([narrow, wide], [0, 0])
    (compact,) = sweep.retrain([narrow], [0], masked=False)
    assert_close(masked.variables, compact.variables, 1e-5)
    assert masked.records[-1]["loss"] == pytest.approx(compact.records[-1]["loss"], rel=1e-5)
    kernel = at_its_widths.variables["params"]["Dense_0"]["kernel"]
    assert kernel.shape == (5, wide.widths["Dense_0"])
    assert kernel.shape[1] > 11


def test_a_network_may_start_from_given_variables(trained):
    sweep = make_sweep(seed=1)
    object.__setattr__(sweep.config, "retrain_steps", 0)  # only tests
    again = sweep.train_one(sweep.whole, 1, trained[1])
    assert_close(again.variables, trained[1], 0.0)
    assert again.records == ()


def test_an_impossible_budget_is_refused(sweep):
    sweep.check([1.0, 0.5])
    with pytest.raises(BudgetError, match="cannot meet a budget"):
        sweep.check([0.5, 1e-4])
