"""Slicing trees to an architecture's widths."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from every_axis import ALIVE, MODEL, X, assert_same

import morph
from morph import Architecture, ArchitectureError


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


# Taking


def test_take_slices_every_axis(shrunk, variables):
    small = shrunk.take(variables)["params"]
    left, right, hidden = (np.flatnonzero(ALIVE[name]) for name in ("left", "right", "hidden"))
    joined = np.concatenate([left, 5 + right])
    params = variables["params"]
    assert_same(small["left"]["kernel"], params["left"]["kernel"][..., left])
    assert_same(small["norm"]["bias"], params["norm"]["bias"][joined])
    merged = (np.arange(6)[:, None] * 12 + joined[None, :]).reshape(-1)
    assert_same(small["hidden"]["kernel"], params["hidden"]["kernel"][merged][:, hidden])
    assert_same(small["head"]["bias"], params["head"]["bias"])


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1, momentum=0.9),
        optax.adam(0.1),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(lambda step: 0.1)),
    ],
    ids=["momentum", "adam", "chain"],
)
@pytest.mark.promotes
def test_take_slices_optimizer_states(shrunk, variables, optimizer):
    params = variables["params"]
    state = optimizer.update(params, optimizer.init(params), params)[1]
    small = shrunk.take(state)
    fresh = optimizer.init(shrunk.take(params))
    assert jax.tree.structure(small) == jax.tree.structure(fresh)
    assert shapes(small) == shapes(fresh)


@pytest.mark.promotes
def test_momenta_are_those_of_the_kept_channels(shrunk, variables):
    params = variables["params"]
    for optimizer in (optax.sgd(0.1, momentum=0.9), optax.adam(0.1)):
        _, state = optimizer.update(params, optimizer.init(params), params)
        small = shrunk.take(params)
        _, expected = optimizer.update(small, optimizer.init(small), small)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), shrunk.take(state), expected
        )


def test_states_without_arrays_of_the_network_pass(shrunk, variables):
    optimizer = optax.sgd(lambda step: 0.1)  # its only leaf is a step counter
    state = optimizer.init(variables["params"])
    assert len(jax.tree.leaves(state)) == 1
    assert_same(shrunk.take(state), state)
    assert shrunk.take(optax.sgd(0.1).init(variables["params"])) is not None
    with pytest.raises(morph.ArchitectureError, match=r"nothing to take from: .*, found {}"):
        shrunk.take({})


def test_take_works_on_abstract_variables(shrunk, variables):
    small = shrunk.take(jax.eval_shape(lambda: variables))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(small))
    assert shapes(small) == shapes(shrunk.take(variables))


def test_take_works_under_jit_and_keeps_dtypes(shrunk, variables):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    assert_same(jax.jit(shrunk.take)(half), shrunk.take(half))
    assert {leaf.dtype for leaf in jax.tree.leaves(shrunk.take(half))} == {jnp.dtype("bfloat16")}


def test_take_accepts_only_params(shrunk, variables):
    assert_same(shrunk.take(variables["params"]), shrunk.take(variables)["params"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_clones_divide_their_consumers(graph, variables, dtype):
    cloned = Architecture.of_seed(graph).with_parents(
        {"left": (0, 1, 2, 3, 4, 0, 0), "hidden": (5, 4, 3, 2, 1, 0, 0, 1)}
    )
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype), variables)
    wide = cloned.take(variables)
    assert wide["params"]["head"]["kernel"].dtype == dtype
    kernel = variables["params"]["head"]["kernel"]
    assert_same(wide["params"]["head"]["kernel"][5], kernel[0] / 2)
    assert_same(wide["params"]["head"]["kernel"][3], kernel[2])
    assert_same(
        wide["params"]["left"]["bias"][5:], jnp.repeat(variables["params"]["left"]["bias"][:1], 2)
    )
    if dtype == jnp.float32:
        np.testing.assert_allclose(
            morph.compact(MODEL.apply, cloned)(wide, X), MODEL.apply(variables, X), rtol=1e-5
        )


def test_fresh_channels_cannot_be_taken(shrunk, variables):
    fresh = shrunk.with_parents({"right": (0, -1)})
    with pytest.raises(ArchitectureError, match=r"group 'right' has fresh channels.*morph\.init"):
        fresh.take(variables)


def test_variables_that_do_not_fit_are_refused(shrunk, variables):
    with pytest.raises(ArchitectureError, match=r"has shape \[4\]; in the seed network .* \[7\]"):
        shrunk.take(shrunk.take({"params": {"right": variables["params"]["right"]}}))
    with pytest.raises(ArchitectureError, match="no leaf belongs to the architecture: found 'a/b'"):
        shrunk.take({"a": {"b": jnp.zeros((3, 4))}})
