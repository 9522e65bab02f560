"""The names that flags list are those of the tables, in their order."""

from experiments import vocabulary
from experiments.datasets import DATASETS
from experiments.export import TARGETS
from experiments.networks import SEED_NETWORKS


def test_names_are_those_of_the_tables():
    assert tuple(DATASETS) == vocabulary.DATASETS
    assert tuple(SEED_NETWORKS) == vocabulary.SEED_NETWORKS
    assert tuple(TARGETS) == vocabulary.EXPORTS
