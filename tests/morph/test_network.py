"""Networks of Linen modules."""

import flax.linen as nn
import pytest

import morph


def test_a_linen_module_without_a_train_argument_is_told_what_to_do():
    with pytest.raises(ValueError, match=r"takes no argument 'train'.*train_kwarg=None"):
        morph.linen_network(nn.Dense(3))
    assert morph.linen_network(nn.Dense(3), train_kwarg=None).predict is not None
