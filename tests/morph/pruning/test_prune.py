"""A trained network to a budget in one call."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from morph.errors import BudgetError
from regularizers.errors import InputError


@pytest.mark.parametrize("more", [{}, {"steps": 2}, {"by": "scores"}], ids=str)
@pytest.mark.parametrize("labelled", [True, False])
def test_what_is_useless_goes_and_the_function_stays(case, more, labelled):
    asked = {"loss": case.loss} if labelled else {"fn": lambda v, batch: case.fn(v, batch[0])}
    heard = []
    arch = morph.prune(
        case.graph, case.variables, case.cost, "60%", batches=case.batches, heard=heard.append,
        **asked, **more,
    )  # fmt: skip
    assert heard[-1] == 1.0
    assert heard == sorted(heard)
    assert set(arch.groups["a"].parents) >= set(range(0, 12, 2))
    if not labelled and "by" not in more:
        assert [block.name for block in arch.removed] == list(case.graph.blocks)
    small = arch.take(case.variables)
    left = reg.flops(reg.trace_channels(morph.compact(case.fn, arch), small, case.batches[0][0]))
    assert 0.5 * case.cost.seed < left.seed <= 0.6 * case.cost.seed
    for x, _ in case.batches if "by" not in more else ():
        np.testing.assert_allclose(
            morph.compact(case.fn, arch)(small, x), case.fn(case.variables, x), atol=0.05
        )


def test_settings_reach_the_walk(case):
    asked = {"loss": case.loss, "batches": case.batches}
    arch = morph.prune(
        case.graph, case.variables, case.cost, 0.7, blocks=False, round_to=4,
        floors={"stem": 8}, **asked,
    )  # fmt: skip
    assert not arch.removed
    assert arch.widths["stem"] == 8
    assert arch.widths["a"] % 4 == 0


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({}, InputError, "either loss=.* or fn=.*found neither"),
        ({"loss": None, "fn": None, "by": "curve"}, InputError, "by must be .*scores.*curves"),
        ({"loss": lambda v, b: 0.0, "fn": lambda v, b: b}, InputError, "found both"),
        ({"loss": lambda v, b: 0.0, "batches": []}, InputError, "the batches hold no data"),
        ({"loss": lambda v, b: 0.0, "steps": 0}, InputError, "steps must be .*at least 1, found 0"),
        ({"loss": lambda v, b: 0.0, "budget": 1e-6}, BudgetError, "cannot meet a budget of"),
        ({"loss": lambda v, b: 0.0, "budget": 1.5}, BudgetError, "must be below the present cost"),
        ({"loss": lambda v, b: jnp.nan, "budget": 0.5}, InputError, "loss is nan before"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(case, asked, error, said):
    given = {"batches": case.batches, "budget": 0.5, **asked}
    with pytest.raises(error, match=said):
        morph.prune(case.graph, case.variables, case.cost, given.pop("budget"), **given)


def test_statistics_are_those_of_the_batches():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)

    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, size=(29, 3)), jnp.float32)
    variables = Net().init(jax.random.key(0), x)

    def forward(v, batch):
        return Net().apply(v, batch, train=True, mutable=["batch_stats"])[1]

    found = morph.recalibrate(forward, variables, [x] * 25)
    stats = found["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], x.var(0), rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, found["params"], variables["params"])
    with pytest.raises(InputError, match="the batches hold no data"):
        morph.recalibrate(forward, variables, [])
    with pytest.raises(InputError, match=r"forward gives an array .*statistics by collection"):
        morph.recalibrate(lambda v, batch: batch, variables, [x])
    with pytest.raises(InputError, match=r"new values of 'params'.*found \['batch_stats'\]"):
        morph.recalibrate(lambda v, batch: {"params": v["params"]}, variables, [x])
