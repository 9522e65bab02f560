import jax.numpy as jnp
import pytest

from morph.compress.cluster import shared
from morph.compress.sparsities import matches
from regularizers.patterns import spells

SPELLINGS = ("a", "a/", "a/kernel", "params/a", "params/a/kernel", "*", "a*")


@pytest.mark.parametrize("path", ["a/kernel", "params/a/kernel"])
@pytest.mark.parametrize("pattern", SPELLINGS)
def test_every_spelling_names_the_parameter(pattern, path):
    assert spells(pattern, path)
    assert not spells("kernel", path)
    assert not spells("params/b", path)


@pytest.mark.parametrize("pattern", SPELLINGS)
def test_sparsities_and_clusters_take_every_spelling(pattern):
    assert matches(pattern, ["a/kernel"], "pruning") == ["a/kernel"]
    kernel = jnp.arange(15.0).reshape(3, 5)
    assert shared({"a": {"kernel": kernel}}, {pattern: 2})["a"]["kernel"].centroids.shape == (2,)
