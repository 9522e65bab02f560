"""What calibration batches say of masked networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.pruning.judge import Judge, matching
from regularizers.errors import InputError


def judge_of(case, **more):
    loss = more.pop("loss", case.loss)
    return Judge(
        graph=case.graph,
        variables=case.variables,
        loss=loss,
        slope_loss=more.pop("slope_loss", lambda v, batch, key: loss(v, batch)),
        batches=case.batches,
        groups=tuple(case.graph.groups),
    )


def whole(case):
    return {name: np.ones(width, bool) for name, width in case.graph.widths.items()}


def test_masked_and_silenced_networks_are_measured_as_the_graph_masks_them(case):
    alive = whole(case) | {"a": np.arange(12) < 5}
    (block,) = case.graph.blocks
    for removed in ((), (block,)):
        masked = case.graph.mask(case.variables, alive, removed)
        expected = np.mean([case.loss(masked, batch) for batch in case.batches])
        np.testing.assert_allclose(judge_of(case).value(alive, removed), expected, rtol=1e-5)


def test_scores_are_mean_squared_slopes_along_channels(case):
    alive = whole(case) | {"a": np.arange(12) != 4}
    found = judge_of(case).scores(alive)["a"]

    def along(factors, batch):
        v = case.graph.mask(case.variables, alive)
        return case.loss({**v, "a": v["a"] * factors[None]}, batch)

    slopes = [jax.grad(along)(jnp.ones(12), batch) for batch in case.batches]
    np.testing.assert_allclose(found, np.mean(np.square(slopes), 0), rtol=1e-4, atol=1e-12)
    assert found[4] == 0.0


def test_without_labels_outputs_are_kept(case):
    loss, slope_loss = matching(lambda v, batch: {"logits": case.fn(v, batch[0])}, case.variables)
    judge = judge_of(case, loss=loss, slope_loss=slope_loss)
    assert judge.value(whole(case)) == 0.0
    assert judge.value(whole(case) | {"a": np.arange(12) < 5}) > 0.01
    scores, useless = judge.scores(whole(case))["a"], np.arange(12) % 2 == 1
    assert scores[useless].max() < 1e-3 * np.median(scores[~useless])


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda v, batch: batch[0] @ v["stem"], r"scalar, found an array of shape \[33, 8\]"),
        (lambda v, batch: jnp.log(0.0 * v["a"]).sum(), "scores of .* are not finite"),
    ],
)
def test_losses_that_are_none_are_refused(case, loss, said):
    with pytest.raises(InputError, match=said):
        judge_of(case, loss=loss).scores(whole(case))
