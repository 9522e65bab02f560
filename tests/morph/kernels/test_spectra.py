"""What each bond carries."""

import numpy as np
import pytest
from kernel_cases import TREES, convolution, random

from morph.kernels.spectra import bond_spectra


@pytest.mark.parametrize("kind", TREES)
def test_the_gram_matrix_tells_what_an_svd_tells(kind):
    kernel = convolution().astype(np.float32)
    quick = bond_spectra(kernel, "ssio", kind)
    for bond, exact in bond_spectra(kernel.astype(np.float64), "ssio", kind).items():
        np.testing.assert_allclose(quick[bond].values, exact.values, atol=1e-6)


def test_bonds_that_cut_alike_share_their_spectrum():
    both = bond_spectra(random((1, 1, 20, 30)), "ssio", "tucker2")
    assert both["r_in"].vectors is both["r_out"].vectors
