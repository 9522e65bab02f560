"""Writes what inference finds out about the networks of the corpus: `golden/<name>.json`.

    PYTHONPATH=.:tests python -m corpus.regenerate            # all
    PYTHONPATH=.:tests python -m corpus.regenerate vit swin   # some

Read the difference before committing it: an axis that gets fixed is a step back.
"""

import sys
from collections.abc import Sequence

from corpus.description import GOLDEN, describe, golden_file, render
from corpus.networks import NETWORKS

import regularizers as reg


def main(names: Sequence[str]) -> None:
    """Rewrites the descriptions of `names`, or of all, and removes those of networks that left."""
    GOLDEN.mkdir(exist_ok=True)
    for name in names or NETWORKS:
        case = NETWORKS[name]()
        graph = reg.trace_channels(case.fn, case.variables, *case.inputs, **case.eval)
        golden_file(name).write_text(render(describe(graph)) + "\n", encoding="utf-8")
    for file in GOLDEN.glob("*.json"):
        if file.stem not in NETWORKS:
            file.unlink()


if __name__ == "__main__":
    main(sys.argv[1:])
