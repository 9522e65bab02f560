"""CP: exact where the rank is the tensor's, and as good as the best of several runs elsewhere."""

import jax.numpy as jnp
import numpy as np
import pytest
import tensorly
from tensorly.decomposition import parafac

from morph.kernels.canonical import canonical
from morph.kernels.decompose import factorize

EPS = 1e-7
C = 5


def made(factors):
    return tensorly.cp_to_tensor((None, factors))


def lost(array, factors):
    return np.linalg.norm(made(factors) - array) / np.linalg.norm(array)


def shifts():
    """Every channel moves by its own step."""
    kernel = np.zeros((3, 3, C, C))
    for i in range(C):
        kernel[i % 3, i // 3, i, i] = 1.0
    return kernel, C


def identity():
    kernel = np.zeros((3, 3, C, C))
    kernel[1, 1] = np.eye(C)
    return kernel, C


def permutation():
    kernel = np.zeros((3, 1, C, C))
    kernel[2, 0] = np.eye(C)[np.random.default_rng(0).permutation(C)]
    return kernel, C


def depthwise():
    """A separable window for every channel."""
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=(2, 3, C))
    return np.einsum("hi,wi,ij->hwij", rows, columns, np.eye(C)), C


def laplace():
    """One window of rank 2 for all channels."""
    window = np.array([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    return np.multiply.outer(window, np.eye(3)), 6


def of_rank_three():
    rng = np.random.default_rng(1)
    factors = [rng.normal(size=(n, 3)) for n in (3, 2, 4, 5)]
    return made(factors), 3


def product_of_matrices():
    """Strassen's: two matrices of 2 x 2 are multiplied by 7 products."""
    return np.einsum("ij,kl,mn->iklnmj", *[np.eye(2)] * 3).reshape(4, 4, 4), 7


@pytest.mark.parametrize(
    "case", [identity, permutation, shifts, depthwise, laplace, of_rank_three, product_of_matrices]
)
def test_tensors_of_the_rank_are_found(case):
    array, rank = case()
    assert lost(array, canonical(array, rank, eps=EPS)) < 1e-4


def test_a_kernel_of_zeros_and_components_too_many_can_be_trained():
    for array in (np.zeros((3, 4, 5)), np.ones((3, 4, 5)), np.ones((3, 4))):
        factors = canonical(array, 3, eps=EPS)
        np.testing.assert_allclose(made(factors), array, atol=1e-12)
        norms = np.stack([np.linalg.norm(factor, axis=0) for factor in factors])
        assert ((norms > 0).sum(axis=0) >= len(factors) - 1).all()


def test_a_lower_border_rank_does_not_blow_components_up():
    """x y y' + y x y' + y y x' has rank 3, and rank 2 comes as near as components are large."""
    array = np.zeros((2, 2, 2))
    array[0, 1, 1] = array[1, 0, 1] = array[1, 1, 0] = 1.0

    def largest(eps):
        factors = canonical(array, 2, eps=eps)
        sizes = np.prod([np.linalg.norm(factor, axis=0) for factor in factors], axis=0)
        return lost(array, factors), sizes.max() / np.linalg.norm(array)

    (error, size), (rough, small) = largest(EPS), largest(2.0**-8)
    assert error < rough < 0.2
    assert small < size < 100.0
    kernel = jnp.asarray(array, jnp.bfloat16)
    assert factorize(kernel, "sio", "cp", 2).error < 0.2


@pytest.mark.parametrize("seed", [0, 1])
def test_as_good_as_the_best_of_three(seed):
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(3, 3, 6, 7)) * np.array([0.3, 1.0, 0.3])[:, None, None, None]
    runs = [parafac(array, 5, init="random", random_state=k, n_iter_max=200) for k in range(3)]
    best = min(np.linalg.norm(tensorly.cp_to_tensor(run) - array) for run in runs)
    assert lost(array, canonical(array, 5, eps=EPS)) <= best / np.linalg.norm(array) * (1 + 1e-3)


def test_iterations_are_bounded():
    array = np.random.default_rng(0).normal(size=(3, 4, 5))
    errors = [lost(array, canonical(array, 3, eps=EPS, iterations=n)) for n in (1, 10, None)]
    assert errors[0] > errors[1] >= errors[2]
