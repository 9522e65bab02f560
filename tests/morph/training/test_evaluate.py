"""Every example is counted once, whatever the batches."""

import jax.numpy as jnp
import numpy as np
import pytest

from morph.errors import DataError
from morph.training.data import Batch
from morph.training.evaluate import Evaluator
from morph.training.metrics import METRICS, Metric, mean_of

X = np.arange(7.0, dtype=np.float32)[:, None]
Y = np.asarray([0, 1, 0, 1, 1, 1, 1])
ACCURACY = {"accuracy": METRICS["accuracy"]}


def predict(variables, x):
    return jnp.concatenate([jnp.full_like(x, variables), x], axis=1)


class Stream:
    """Batches of growing sizes, again at every pass."""

    def __iter__(self):
        for rows in (slice(0, 1), slice(1, 3), slice(3, 7)):
            yield X[rows], Y[rows]  # a pair is a batch, too


@pytest.mark.parametrize("data", [Batch(X, Y), Stream()], ids=["whole", "stream"])
def test_every_example_is_counted_once(data):
    evaluator = Evaluator(data, ACCURACY, batch_size=3)
    np.testing.assert_array_equal(evaluator.outputs(predict, 3.5)[:, 1], np.arange(7.0))
    assert evaluator.measure(predict, 3.5) == {"accuracy": pytest.approx(5 / 7)}
    first = mean_of(lambda logits, batch: logits[:, 1])
    both = Evaluator(data, {"first": first, **ACCURACY}, batch_size=3)
    assert next(iter(both.measure(predict, 3.5).items())) == ("first", 3.0)


def test_networks_are_compared_by_all_that_they_give_out():
    def both(variables, x):
        return {"logits": predict(variables, x), "classes": predict(variables, x).argmax(-1)}

    evaluator = Evaluator(Batch(X), batch_size=3)
    metrics, apart = evaluator.compare((both, 3.5), (both, 4.5))
    assert metrics == {}
    assert apart.difference == pytest.approx(1.0 / 6.0)
    assert apart.same is None
    evaluator = Evaluator(Batch(X), decide=lambda outputs: outputs["classes"], batch_size=3)
    assert not evaluator.compare((both, 3.5), (both, 4.5))[1].same
    assert evaluator.compare((both, 3.5), (both, 3.6))[1].same


@pytest.mark.parametrize(
    ("metric", "data", "message"),
    [
        (
            Metric(measure=lambda logits, batch: logits, compute=np.mean),
            Batch(X, Y),
            r"metric 'mine' changes shape.* gave \(3, 2\), then \(1, 2\)",
        ),
        (
            Metric(measure=lambda logits, batch: logits.sum(0), compute=np.abs),
            Batch(X, Y),
            r"gives an array of shape \(2,\)",
        ),
        (mean_of(lambda logits, batch: logits[0]), Batch(X, Y), r"gave shape \(2,\) for a batch"),
        (mean_of(lambda logits, batch: (logits, batch.y)), Batch(X, Y), "weights .* the same"),
        (mean_of(lambda logits, batch: (batch.y, 0 * batch.y)), Batch(X, Y), "nothing to count"),
        (METRICS["accuracy"], [], "gives no batches: there is nothing to measure"),
        (METRICS["accuracy"], iter(Stream()), "generator, which is used up after one pass"),
        (METRICS["accuracy"], 5, "is a morph.Batch, or gives.*found a int"),
        (METRICS["accuracy"], [{"x": X}], "must give morph.Batch.*found dict"),
    ],
)
def test_what_cannot_be_measured_is_refused(metric, data, message):
    with pytest.raises(DataError, match=message):
        Evaluator(data, {"mine": metric}, batch_size=3).measure(predict, 3.5)
