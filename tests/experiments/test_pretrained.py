"""The networks that others trained: their counts, and what they are known to score."""

import functools
import os

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import regularizers as reg
from experiments import datasets
from experiments.pretrained import imagenet_pictures, minilm, mnist_cnn, mobilenet_v2, weights
from experiments.pretrained.pth import read_pth
from morph.network import linen_network

NETWORKS = {
    "mnist_cnn": (mnist_cnn.MNISTCNN(), (3, 28, 28, 1), "float32"),
    "mobilenet_v2": (mobilenet_v2.MobileNetV2(), (3, 64, 96, 3), "float32"),
    "minilm": (minilm.MiniLM(), (3, 7), "int32"),
}


def real(load, *args):
    """What must be there in CI, and may be absent elsewhere."""
    try:
        return load(*args)
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def top(logits, k):
    return np.argsort(-np.asarray(logits), axis=1)[:, :k]


def test_the_mnist_cnn_has_its_parameters_and_its_accuracy():
    module, variables = real(mnist_cnn.load)
    assert size(variables) == 390_410
    data = real(datasets.load, "mnist")
    predict = jax.jit(module.apply)
    logits = [predict(variables, data.test_images[i : i + 2500]) for i in range(0, 10_000, 2500)]
    assert np.sum(top(np.concatenate(logits), 1)[:, 0] == data.test_labels) == 9906


def test_mobilenet_v2_has_its_tensors_and_knows_the_pictures():
    module, variables = real(mobilenet_v2.load)
    (path,) = weights.find(mobilenet_v2.PACKAGE).values()
    tensors = read_pth(path)
    assert (len(tensors), size(tensors)) == (314, 3_539_036)
    assert size(variables["params"]) == 3_504_872
    images, labels = real(imagenet_pictures.load)
    assert images.shape == (20, 224, 224, 3)
    best = top(jax.jit(module.apply)(variables, images), 5)
    assert np.sum(best[:, 0] == labels) == 18
    assert np.sum(best == labels[:, None]) == 20


@pytest.fixture(scope="module")
def embed():
    module, variables = real(minilm.load)
    tokenize, apply = real(minilm.load_tokenizer), jax.jit(module.apply)
    return lambda sentences: np.asarray(apply(variables, tokenize(sentences)))


def test_minilm_has_its_tensors():
    _, variables = real(minilm.load)
    tensors = load_file(weights.find(minilm.PACKAGE)["model.safetensors"])
    assert (len(tensors), size(tensors)) == (104, 22_713_728)
    pooler, position_ids = 384 * 384 + 384, 512
    assert size(variables) == 22_713_728 - pooler - position_ids


def test_minilm_embeds_as_its_documentation_says(embed):
    # https://sbert.net/docs/quickstart.html
    embeddings = embed(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    )
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(embeddings @ embeddings.T, published, atol=5e-5)


def test_minilm_tells_paraphrases_from_other_sentences_also_beside_longer_ones(embed):
    pairs = [
        ("A dog chases the cat.", "The cat is being chased by a dog."),
        ("How do I cook rice?", "What is the best way to prepare rice?"),
        ("Shares fell sharply on Monday.", "The stock market dropped at the start of the week."),
    ]
    one, other = map(list, zip(*pairs, strict=True))
    longer = "The longest of them, which makes all the others shorter than it is, thrice over. " * 3
    embeddings = embed([*one, *other, longer])
    similarity = embeddings[:3] @ embeddings[3:6].T
    assert similarity.diagonal().min() > similarity[~np.eye(3, dtype=bool)].max() + 0.3
    np.testing.assert_allclose(embed(one[:1]), embeddings[:1], atol=1e-5)


def test_sentences_are_cut_off_and_must_not_be_one_string():
    tokenize = real(lambda: minilm.load_tokenizer(max_tokens=4))
    assert tokenize(["Flax is a plant.", ""]).tolist() == [
        [101, 13109, 8528, 102],
        [101, 102, 0, 0],
    ]
    assert tokenize([]).shape == (0, 0)
    with pytest.raises(TypeError, match="a sequence of sentences; got one sentence"):
        tokenize("Flax")
    with pytest.raises(ValueError, match=r"max_tokens must be in \[2, 512\]; got 513"):
        minilm.load_tokenizer(max_tokens=513)
    with pytest.raises(ValueError, match="at most 512 tokens of a sentence; got 513"):
        jax.eval_shape(minilm.MiniLM().init, jax.random.key(0), np.zeros((1, 513), np.int32))


@functools.cache
def abstract(name):
    """A network's module, variables and input, of which only shapes are known."""
    module, *described = NETWORKS[name]
    x = jax.ShapeDtypeStruct(*described)
    return module, dict(jax.eval_shape(module.init, jax.random.key(0), x)), x


def groups_of(name):
    module, variables, x = abstract(name)
    graph = reg.trace_channels(module.apply, variables, x)
    assert not graph.unknown
    assert all(group.exact for group in graph.groups.values())
    return graph.groups


@pytest.mark.parametrize("name", NETWORKS)
def test_it_trains_as_a_network(name):
    module, variables, x = abstract(name)
    network = linen_network(module)
    out, updates = jax.eval_shape(network.forward, variables, x, jax.random.key(0))
    assert out == jax.eval_shape(network.predict, variables, x)
    assert updates == {key: tree for key, tree in variables.items() if key != "params"}


def test_the_channels_of_the_mnist_cnn():
    assert [group.width for group in groups_of("mnist_cnn").values()] == [32, 64, 128, 256]


def test_the_blocks_of_mobilenet_v2_share_the_channels_of_their_residual_streams():
    streams = {}  # from the blocks that write a stream to its width
    inner = []
    for group in groups_of("mobilenet_v2").values():
        blocks = [
            m.path for m in group.members if m.path.endswith("project/conv/kernel") and m.produces
        ]
        if blocks:
            streams[tuple(int(path.split("block_")[1].split("/")[0]) for path in blocks)] = (
                group.width
            )
        else:
            inner.append(group.width)
    assert streams == {
        (0,): 16,
        (1, 2): 24,
        (3, 4, 5): 32,
        (6, 7, 8, 9): 64,
        (10, 11, 12): 96,
        (13, 14, 15): 160,
        (16,): 320,
    }
    hidden = [32, 96, *[144] * 2, *[192] * 3, *[384] * 4, *[576] * 3, *[960] * 3]
    assert inner == [*hidden, 1280]


def test_the_heads_and_perceptrons_of_minilm_are_channels_and_its_output_is_not():
    heads, query_and_key, value, hidden = 12, 32, 32, 1536
    layer = [heads, query_and_key, value, hidden]
    assert [group.width for group in groups_of("minilm").values()] == layer * 6
