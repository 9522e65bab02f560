"""The names that flags and settings list are those of the tables, in their order."""

import pytest

from morph import vocabulary
from morph.compress.methods import METHODS
from morph.compress.sparsities import DISTRIBUTIONS
from morph.kernels.formats import FORMATS
from morph.training.augment import AUGMENTATIONS
from morph.training.gated import MODES
from morph.training.losses import LOSSES, TAUGHT
from morph.training.metrics import METRICS
from morph.training.optimizers import OPTIMIZERS

TABLES = {
    "AUGMENTATIONS": AUGMENTATIONS,
    "COMPRESSIONS": METHODS,
    "DISTRIBUTIONS": DISTRIBUTIONS,
    "FORMATS": FORMATS,
    "GATE_MODES": MODES,
    "LOSSES": LOSSES,
    "METRICS": METRICS,
    "OPTIMIZERS": OPTIMIZERS,
    "TAUGHT": TAUGHT,
}


@pytest.mark.parametrize("name", TABLES)
def test_names_are_those_of_the_table(name):
    assert getattr(vocabulary, name) == tuple(TABLES[name])
