"""All networks of the corpus, by name: one per structural idea that is met in the wild."""

from collections.abc import Callable
from itertools import chain

from corpus import attention, convolutional, generative, graphs, recurrent, structure
from corpus.case import Case

FAMILIES = (convolutional, attention, recurrent, graphs, generative, structure)
NETWORKS: dict[str, Callable[[], Case]] = dict(
    chain.from_iterable(family.NETWORKS.items() for family in FAMILIES)
)
if len(NETWORKS) < sum(len(family.NETWORKS) for family in FAMILIES):
    raise ValueError("two networks of the corpus have the same name")
