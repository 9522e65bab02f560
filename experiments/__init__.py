"""Runs Morph: command-line flags, data sets, seed networks and configurations."""

from experiments.console.start import answer
from experiments.console.stop import from_the_first_import

from_the_first_import()
answer()
