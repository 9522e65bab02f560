"""What many rules need."""

import jax.numpy as jnp
import numpy as np
import pytest

from morph.export.onnx_rules.graph import WIDER, padded

pytest.importorskip("onnx")


class Recorder:
    """A graph that only remembers operations."""

    def __init__(self):
        self.ops = []

    def node(self, op, *inputs, **attributes):
        self.ops.append(op)
        return op

    def constant(self, value):
        return str(np.asarray(value).tolist())


def test_wider_types_hold_the_narrow_ones():
    for narrow, wide in WIDER.items():
        if narrow.kind in "iu" and narrow != np.uint64:
            assert np.can_cast(narrow, wide)
    assert WIDER[np.dtype(jnp.bfloat16)] == np.float32


def test_only_what_is_needed_is_padded_or_cut():
    for pads, ops in (
        ([(0, 0)], []),
        ([(1, 0)], ["Pad"]),
        ([(-1, 0)], ["Slice"]),
        ([(-1, 2), (0, 0)], ["Slice", "Pad"]),
    ):
        graph = Recorder()
        padded(graph, "x", pads, "0")
        assert graph.ops == ops
