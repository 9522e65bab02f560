"""Decompositions against values computed elsewhere, and against what theory promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import KINDS, TREES, convolution, random

from morph.kernels.decompose import factorize, truncated
from morph.kernels.spectra import bond_spectra

SHAPES = [
    ("io", (6, 8)),
    ("oi", (7, 5)),
    ("ioo", (6, 2, 4)),
    ("iio", (2, 3, 5)),
    ("ssio", (3, 2, 4, 5)),
    ("ssio", (1, 1, 7, 4)),
    ("ssio", (3, 3, 1, 6)),
    ("sio", (3, 4, 6)),
    ("io", (1, 1)),
]


def _matrix() -> np.ndarray:
    i, j = np.arange(64.0)[:, None], np.arange(64.0)[None]
    return np.sin(0.11 * i + 0.3) * np.cos(0.17 * j) + 0.2 * np.sin(0.013 * i * j)


def _dense(value) -> np.ndarray:
    return np.asarray(value.dense())


def _swept(tensor: np.ndarray, rank: int) -> float:
    """What a sweep of TT-SVD discards, from nothing but numpy's SVD."""
    lost, rest = 0.0, tensor.reshape(tensor.shape[0], -1)
    for n in tensor.shape[1:]:
        _, s, v = np.linalg.svd(rest, full_matrices=False)
        lost += np.sum(s[rank:] ** 2)
        rest = (s[:rank, None] * v[:rank]).reshape(min(rank, len(s)) * n, -1)
    return float(np.sqrt(lost))


@pytest.mark.parametrize(
    ("rank", "error"), [(2, 15.3678819636), (4, 7.0004182042), (8, 4.2465794889), (16, 0.0)]
)
def test_tt_svd_loses_what_it_discards(rank, error):
    matrix = _matrix()
    found = factorize(matrix, "io", "tt", rank, factors=[(4, 4, 4), (4, 4, 4)])
    lost = found.error * np.linalg.norm(matrix)
    cores = matrix.reshape(4, 4, 4, 4, 4, 4).transpose(0, 3, 1, 4, 2, 5).reshape(16, 16, 16)
    assert found.value.ranks == {"r1": rank, "r2": rank}
    assert lost == pytest.approx(error, abs=1e-9)
    assert lost == pytest.approx(_swept(cores, rank), abs=1e-9)


def test_svd_is_the_best_of_its_rank():
    matrix = _matrix()
    found = factorize(matrix, "io", "svd", 8)
    lost = found.error * np.linalg.norm(matrix)
    assert lost == pytest.approx(6.016635219750198, abs=1e-10)
    assert lost == pytest.approx(bond_spectra(matrix, "io", "svd")["r"].tails[8], abs=1e-10)


@pytest.mark.parametrize(
    ("iterations", "error"), [(0, 0.1778787682), (1, 0.1771654587), (10, 0.1771603958)]
)
def test_tucker2_by_hosvd_and_hooi(iterations, error):
    ranks = {"r_in": 4, "r_out": 5}
    found = factorize(convolution(), "ssio", "tucker2", ranks, iterations=iterations)
    assert found.error == pytest.approx(error, abs=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("roles", "shape"), SHAPES)
def test_full_ranks_are_the_kernel(kind, roles, shape):
    kernel = random(shape)
    found = factorize(kernel, roles, kind, 10**6)
    np.testing.assert_allclose(_dense(found.value), kernel, atol=1e-5)
    assert found.value.shape == shape
    assert found.error < 1e-6
    assert all("clipped" in note for note in found.notes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("roles", "shape"), SHAPES)
def test_zeros_and_ranks_that_the_kernel_does_not_have(kind, roles, shape):
    zeros = factorize(np.zeros(shape, np.float32), roles, kind, 2)
    assert zeros.error == 0.0
    assert not _dense(zeros.value).any()
    assert any(core.any() for core in zeros.value.cores)  # else no gradient would ever reach it
    assert factorize(np.ones(shape, np.float32), roles, kind, 2).error < 1e-6
    nothing = factorize(np.zeros(shape, np.float32), roles, kind, "vbmf")
    assert set(nothing.value.ranks.values()) == {1}
    assert all("nothing stands out of the noise" in note for note in nothing.notes)
    assert len(nothing.notes) == len(nothing.value.ranks)


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize(("roles", "shape"), SHAPES[:6])
@pytest.mark.parametrize("error", [0.5, 0.1])
def test_the_error_is_within_its_bounds(kind, roles, shape, error):
    kernel = random(shape).astype(np.float64)
    spectra = bond_spectra(kernel, roles, kind)
    found = factorize(kernel, roles, kind, error=error, spectra=spectra)
    lost = [spectra[bond].tails[rank] for bond, rank in found.value.ranks.items()]
    assert found.error <= error
    assert max(lost) - 1e-9 <= found.error * np.linalg.norm(kernel) <= np.hypot.reduce(lost) + 1e-9


def test_cp_finds_an_exact_rank():
    draw = np.random.default_rng(0).standard_normal
    kernel = np.einsum("hr,wr,ir,or->hwio", *(draw((n, 3)) for n in (3, 3, 8, 12)))
    assert factorize(kernel, "ssio", "cp", 3, iterations=500).error < 1e-4
    again = [factorize(kernel, "ssio", "cp", 2).value.cores for _ in range(2)]
    assert all((a == b).all() for a, b in zip(*again, strict=True))


def test_cp_of_a_matrix_is_its_svd():
    matrix = _matrix()
    errors = [factorize(matrix, "io", kind, 8).error for kind in ("cp", "svd")]
    assert errors[0] == pytest.approx(errors[1], abs=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_cores_have_the_kernels_type_and_equal_norms(dtype):
    kernel = jnp.asarray(convolution(), dtype)
    for kind in KINDS:
        found = factorize(kernel, "ssio", kind, 3)
        wide = factorize(np.asarray(kernel, np.float64), "ssio", kind, 3)
        assert all(isinstance(core, jax.Array) for core in found.value.cores)
        assert found.value.dtype == dtype
        assert found.error == pytest.approx(wide.error, abs=4 * float(jnp.finfo(dtype).eps))
        norms = [np.linalg.norm(core) for core in wide.value.cores]
        np.testing.assert_allclose(norms, norms[0], rtol=1e-9)


def test_cutting_an_svd_is_decomposing_again():
    kernel = random((3, 4, 6)).astype(np.float64)
    wide = factorize(kernel, "sio", "svd", 5).value
    cut = truncated(wide, 2)
    assert cut.ranks == {"r": 2}
    direct = factorize(kernel, "sio", "svd", 2).value
    np.testing.assert_allclose(_dense(cut), _dense(direct), atol=1e-6)
    with pytest.raises(ValueError, match="1 to 5, found 6"):
        truncated(wide, 6)
    with pytest.raises(ValueError, match="only kind 'svd'"):
        truncated(factorize(kernel, "sio", "cp", 2).value, 1)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kind": "hosvd"}, "kind 'hosvd' is none of"),
        ({"roles": "io"}, "shape .* has roles 'io'; give one letter an axis"),
        ({"roles": "ssii"}, "at least one 'i' and 'o'"),
        ({"ranks": 0}, "rank of r_in is a whole number of at least 1, found 0"),
        ({"ranks": 2.5}, "found 2.5"),
        ({"ranks": {"r_in": 3, "r_out": -1}}, "rank of r_out .* found -1"),
        ({"ranks": {"r_in": 3}}, r"for the bonds \['r_in', 'r_out'\], found \['r_in'\]"),
        ({"ranks": "evbmf"}, "'vbmf', found 'evbmf'"),
        ({"ranks": None}, "exactly one of ranks, energy and error, found none"),
        ({"energy": 0.5}, "found ranks and energy"),
        ({"ranks": None, "energy": 1.5}, r"in \(0, 1\], found 1.5"),
        ({"ranks": None, "error": 1.0}, r"in \[0, 1\), found 1.0"),
        ({"ranks": None, "error": 0.1, "kind": "cp"}, "cp has no spectrum"),
        ({"factors": [(3,), (3,), (8,), (12,)]}, "factors are for kind 'tt'"),
        ({"kernel": np.full((3, 3, 8, 12), np.nan)}, "kernel a/b .* holds 864 values .* NaN"),
        ({"kernel": np.ones((3, 3, 8, 12), int)}, "only real floats"),
        ({"kernel": np.ones((3, 3, 0, 12))}, "is empty"),
    ],
)
def test_bad_input(changes, match):
    asked = {"kernel": convolution(), "roles": "ssio", "kind": "tucker2", "ranks": 3, **changes}
    with pytest.raises(ValueError, match=match):
        factorize(**asked, path="a/b")
