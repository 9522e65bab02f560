"""Agreement is counted; a missing package names its command."""

import numpy as np
import pytest

from morph.export import Agreement, ExportError, compare

pytest.importorskip("flatbuffers")


@pytest.mark.wrong_arrays
def test_agreement_counts_by_hand():
    reference = np.asarray([[1.0, 3.0, 2.0], [4.0, 0.0, 1.0]])
    found = compare(reference, reference[:, [0, 2, 1]], np.asarray([1, 0]), top=(1, 2))
    assert found == Agreement(
        examples=2,
        logit_difference=0.25,
        same_class=0.5,
        accuracy={1: 0.5, 2: 1.0},
        reference_accuracy={1: 1.0, 2: 1.0},
    )
    assert found.points == 50.0
    pixels = compare(reference[None], reference[None], np.asarray([[1, -1]]))
    assert pixels.accuracy == {
        1: compare(reference[:1], reference[:1], np.asarray([1])).accuracy[1]
    }
    numbers = compare(reference, reference, None)
    assert (numbers.logit_difference, numbers.same_class, numbers.points) == (0.0, None, 0.0)
    with pytest.raises(ExportError, match="two arrays of logits"):
        compare(reference, reference[:1], np.asarray([1, 0]))
    with pytest.raises(ExportError, match="as many labels"):
        compare(reference, reference, np.asarray([1]))


def test_of_equal_logits_the_first_is_the_class():
    """As argmax has it: 8 bits make many of them equal."""
    reference, equal = np.eye(3), np.ones((3, 3))
    found = compare(reference, equal, np.arange(3), top=(1, 2))
    assert found.accuracy == {1: 1 / 3, 2: 2 / 3}
