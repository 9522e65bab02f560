"""Ranks by energy and by evidence."""

import numpy as np
import pytest
from kernel_cases import TREES, convolution, random

from morph.kernels.decompose import factorize
from morph.kernels.spectra import bond_spectra


@pytest.mark.parametrize("kind", TREES)
def test_energy_takes_the_least_ranks(kind):
    kernel = convolution()
    found = factorize(kernel, "ssio", kind, energy=0.9)
    whole = np.sum(kernel**2)
    for bond, spectrum in bond_spectra(kernel, "ssio", kind).items():
        kept = np.cumsum(spectrum.values**2) / whole
        assert found.value.ranks[bond] == 1 + np.count_nonzero(kept < 0.9)


def test_energy_of_all_leaves_out_what_is_rounding():
    matrix = random((30, 3)) @ random((3, 40), 1)
    assert factorize(matrix.astype(np.float64), "io", "svd", energy=1.0).value.ranks == {"r": 3}


def test_vbmf_finds_the_ranks_of_each_bond():
    draw = np.random.default_rng(4).standard_normal
    kernel = np.einsum("hwab,ai,bo->hwio", draw((3, 3, 4, 6)), draw((4, 20)), draw((6, 25)))
    kernel = (kernel + 0.05 * draw(kernel.shape)).astype(np.float32)
    found = factorize(kernel, "ssio", "tucker2", "vbmf")
    assert found.value.ranks == {"r_in": 4, "r_out": 6}
    assert found.notes == ()
    assert factorize(kernel, "ssio", "svd", "vbmf").value.ranks == {"r": 6}
    assert factorize(kernel, "ssio", "cp", "vbmf", iterations=2).value.ranks == {"r": 6}
