"""Allocation, against trying everything."""

import numpy as np

from morph.tensorize.allocate import Option, allocate


def test_allocation_is_as_good_as_trying_everything():
    rng = np.random.default_rng(0)
    dense = {name: float(rng.integers(50, 100)) for name in "abc"}
    options = {
        name: [
            Option(kind="svd", ranks={"r": r}, cost=cost * r / 10, loss=rng.uniform() * 0.9**r)
            for r in range(1, 10)
        ]
        for name, cost in dense.items()
    }
    for share in (0.8, 0.5, 0.3):
        most = share * sum(dense.values())
        chosen = allocate(dense, options, most)
        cost = sum(o.cost if o else dense[n] for n, o in chosen.items())
        loss = sum(o.loss if o else 0.0 for o in chosen.values())
        ways = [[(dense[n], 0.0), *((o.cost, o.loss) for o in options[n])] for n in dense]
        best = min(
            a[1] + b[1] + c[1]
            for a in ways[0]
            for b in ways[1]
            for c in ways[2]
            if a[0] + b[0] + c[0] <= most
        )
        assert cost <= most
        assert loss <= best + 0.1
