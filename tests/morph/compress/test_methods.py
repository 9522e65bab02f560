"""The methods of compression, stage by stage."""

import jax.numpy as jnp
import numpy as np
import pytest
from fixed_point_case import Net, with_tiny_channel

from morph.compress.config import CompressConfig
from morph.compress.methods import compressed
from morph.network import linen_network
from morph.training.data import Batch
from morph.training.losses import cross_entropy


@pytest.mark.promotes
def test_the_method_equalizes_where_it_pays_and_trains_what_it_measured(case):
    """In evaluation mode: in training mode an equalized network is another function."""
    _, variables, x, _ = case
    data = Batch(np.asarray(x), np.zeros(len(x), np.int32))
    config = CompressConfig(
        compress="fixed", compress_steps=3, compress_learning_rate=0.01, compress_batch_size=5
    )
    rounded, retrained = compressed(
        linen_network(Net()), with_tiny_channel(variables), data, config
    )
    sizes = jnp.abs(rounded.variables["params"]["depthwise"]["kernel"].dense()).max((0, 1, 2))
    np.testing.assert_allclose(sizes[sizes > 0], sizes.max(), rtol=0.01)
    for stage in (rounded, retrained):
        np.testing.assert_array_equal(
            stage.variables["batch_stats"]["norm"]["mean"],
            rounded.variables["batch_stats"]["norm"]["mean"],
        )
    losses = [
        cross_entropy(stage.predict(stage.variables, x), data.y).mean()
        for stage in (rounded, retrained)
    ]
    assert losses[1] < losses[0]
