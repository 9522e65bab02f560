"""A function and its file on the same examples; and whether examples are independent."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.export import ExportError
from morph.export.exported import batch_opened, example_struct, opened
from morph.export.trial import Trial, difference

X = np.random.default_rng(0).uniform(0.1, 1.0, (4, 3)).astype(np.float32)


def of(fn, example=X):
    return Trial(lambda _, x: fn(x), None, example, example_struct(example))


ALONE = {
    "itself": lambda x: jnp.tanh(x) @ jnp.ones((3, 2)),
    "a softmax": lambda x: jax.nn.softmax(x, -1),
    "two outputs": lambda x: {"a": x, "b": x.sum(1)},
    "only four": lambda x: x.reshape(4, 3) * 2,
}
TOGETHER = {
    "a mean": lambda x: x - x.mean(0, keepdims=True),
    "neighbours": lambda x: x + jnp.roll(x, 1, 0),
    "the largest": lambda x: x / jnp.abs(x).max(),
    "a little": lambda x: x + 1e-6 * x.sum(),
    "their order": lambda x: jnp.sort(x, 0),
    "their number": lambda x: x / x.shape[0],
    "their place": lambda x: x + jnp.arange(x.shape[0], dtype=jnp.float32)[:, None],
    "a scalar": lambda x: x.sum(),
    "only the last": lambda x: x * (x[-1:, :1] > 0.5),
}


@pytest.mark.parametrize("name", ALONE)
def test_independent(name):
    assert of(ALONE[name]).mixing() == "independent"


@pytest.mark.parametrize("name", TOGETHER)
def test_mixed(name):
    assert of(TOGETHER[name]).mixing() == "mixed"


def test_one_example_tells_nothing():
    assert of(lambda x: x.reshape(1, 3), X[:1]).mixing() == "unknown"


def test_examples_are_like_those_that_were_given():
    trial = of(lambda x: x)
    np.testing.assert_array_equal(trial.examples(4), X)
    more = trial.examples(6)
    np.testing.assert_array_equal(more[:4], X)
    assert np.all(more[4:] < X[:2])
    shapes = of(lambda x: x, jax.ShapeDtypeStruct((2, 3), jnp.int32))
    assert set(np.unique(shapes.examples(50))) == {0, 1, 2, 3}


def test_a_file_is_right_or_refused():
    trial = of(lambda x: {"out": jnp.log(x)})
    sizes = trial.sizes(batch_opened(trial.structs))
    assert [x.shape for x in sizes] == [(4, 3), (5, 3)]
    trial.check(lambda x: {"out": np.log(x)}, sizes)
    with pytest.raises(
        ExportError, match=r"with 5 examples the outputs of the file differ: off by .* \(out\)"
    ):
        trial.check(lambda x: {"out": np.log(x) * (len(x) < 5)}, sizes)
    with pytest.raises(ExportError, match="with 4 examples the file does not run: 'no such"):
        trial.check(lambda x: {}["no such"], sizes)


def test_every_size_with_a_name_is_tried_with_one_more():
    trial = of(lambda x: x @ x.T)
    assert [x.shape for x in trial.sizes(opened(trial.structs, "n, m"))] == [(4, 3), (5, 4)]
    (fixed,) = trial.sizes(opened(trial.structs, "..."))
    assert fixed is trial.structs
    x, y = trial.expected(opened(jax.ShapeDtypeStruct((6, 7), jnp.float32), "..."))
    assert (x.shape, y.shape) == ((6, 7), (6, 6))
    np.testing.assert_allclose(x[4:, :3], X[:2] * (1 - 0.1 / 2))


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (np.ones(3), np.ones(3), ""),
        (np.ones(3), np.ones(3) + 1e-5, ""),
        (np.ones(3), np.ones(3) + 1e-2, "off by 0.01"),
        (np.ones(3), np.ones(2), r"shape \[2\], in JAX \[3\]"),
        (np.asarray([np.nan, 1.0]), np.asarray([np.nan, 1.0]), ""),
        (np.asarray([np.nan, 1.0]), np.ones(2), "numbers where JAX has none"),
        (np.asarray([np.inf, 1.0]), np.asarray([-np.inf, 1.0]), "off by"),
        (np.arange(3), np.arange(3)[::-1], "67% of the numbers differ"),
        (np.arange(1000), np.append(np.arange(999), 0), ""),
    ],
)
def test_differences_are_told(one, other, told):
    assert re.fullmatch(told + ".*" if told else "", difference(one, other, 1e-3))
