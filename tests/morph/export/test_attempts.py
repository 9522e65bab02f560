"""Which sizes a file leaves open: the batch where it can be, or those that are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from morph.export import ExportError, onnx, stablehlo, to_onnx_int8, to_tflite, trial

pytest.importorskip("onnxruntime")
pytest.importorskip("flatbuffers")

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(11, 6)).astype(np.float32)
EDGES = RNG.integers(0, 5, (2, 7)).astype(np.int32)
NODES = RNG.normal(size=(5, 6)).astype(np.float32)
TARGETS = [(onnx.to_onnx, onnx.load), (stablehlo.to_stablehlo, stablehlo.load)]


def attention(table, tokens):
    """Causal, over a sequence of any length."""
    x = table[tokens]
    later = jnp.arange(x.shape[1])[None, :] > jnp.arange(x.shape[1])[:, None]
    weights = jnp.where(later, -jnp.inf, jnp.einsum("nld,nmd->nlm", x, x))
    return jnp.einsum("nlm,nmd->nld", jax.nn.softmax(weights), x).reshape(-1, 6)


def messages(kernel, graph):
    """What the neighbours of every node say."""
    source, target = graph["edges"]
    return jnp.zeros_like(graph["nodes"]).at[target].add(jnp.tanh(graph["nodes"] @ kernel)[source])


@pytest.mark.promotes
@pytest.mark.parametrize("reverse", [False, True])
def test_a_recurrence_over_any_length(tmp_path, reverse):
    def fn(kernel, x):
        def step(state, own):
            state = jnp.tanh(state @ kernel + own)
            return state, 2 * state

        last, every = jax.lax.scan(step, x[:, 0], x.swapaxes(0, 1), reverse=reverse)
        return last + every.mean(0)

    kernel, x = RNG.normal(size=(3, 3)).astype(np.float32), RNG.normal(size=(2, 5, 3))
    path = onnx.to_onnx(fn, kernel, x, tmp_path / "a", shapes="batch, length, ...").path
    longer = RNG.normal(size=(3, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(onnx.load(path)(longer), fn(kernel, jnp.asarray(longer)), atol=1e-5)


@pytest.mark.promotes
@pytest.mark.parametrize(("write", "load"), TARGETS, ids=["onnx", "stablehlo"])
def test_sequences_and_graphs_of_any_size(tmp_path, write, load):
    tokens = RNG.integers(0, 11, (2, 5)).astype(np.int32)
    written = write(attention, TABLE, tokens, tmp_path / "a", shapes="batch, length")
    assert written.batch is None
    longer = RNG.integers(0, 11, (3, 9)).astype(np.int32)
    np.testing.assert_allclose(
        load(written.path)(longer), attention(TABLE, longer), rtol=2e-5, atol=1e-5
    )
    shapes = {"edges": "2, edges", "nodes": "nodes, 6"}
    kernel, graph = RNG.normal(size=(6, 6)).astype(np.float32), {"edges": EDGES, "nodes": NODES}
    written = write(messages, kernel, graph, tmp_path / "b", shapes=shapes)
    larger = {"edges": RNG.integers(0, 8, (2, 13)), "nodes": RNG.normal(size=(8, 6))}
    larger = {"edges": larger["edges"].astype(np.int32), "nodes": np.float32(larger["nodes"])}
    np.testing.assert_allclose(
        load(written.path)(larger), messages(kernel, larger), rtol=2e-5, atol=1e-5
    )


ROOM_FOR = 8  # tokens in a cache


def step(table, inputs):
    """Tokens [n, l] behind those in a cache; what comes next, and the cache with them."""
    x, at = table[inputs["tokens"]], inputs["at"]
    cache = jax.lax.dynamic_update_slice(inputs["cache"], x, (0, at, 0))
    later = jnp.arange(ROOM_FOR)[None, :] > at + jnp.arange(x.shape[1])[:, None]
    weights = jnp.where(later, -jnp.inf, jnp.einsum("nld,nmd->nlm", x, cache))
    read = jnp.einsum("nlm,nmd->nld", jax.nn.softmax(weights), cache)
    return {"logits": read @ table.T, "cache": cache}


@pytest.mark.promotes
def test_a_decoder_with_a_cache_is_two_graphs(tmp_path):
    """Prefill takes a prompt of any length, decode one token after the other."""
    empty, at = np.zeros((2, ROOM_FOR, 6), np.float32), np.asarray(0, np.int32)
    prompt = RNG.integers(0, 11, (2, 3)).astype(np.int32)
    shapes = {"tokens": "batch, length", "cache": "batch, ...", "at": ""}
    inputs = {"tokens": prompt, "cache": empty, "at": at}
    onnx.to_onnx(
        step, TABLE, inputs, tmp_path / "prefill.onnx", shapes=shapes,
        constraints=["length <= 8"],
    )  # fmt: skip
    one = {**inputs, "tokens": prompt[:, :1], "at": at + 3}
    assert onnx.to_onnx(step, TABLE, one, tmp_path / "decode.onnx").batch is None
    prefill, decode = (onnx.load(tmp_path / f"{own}.onnx") for own in ("prefill", "decode"))
    tokens = RNG.integers(0, 11, (2, 5)).astype(np.int32)
    found = prefill({"tokens": tokens, "cache": empty, "at": at})
    whole = np.concatenate([tokens, np.zeros((2, 2), np.int32)], 1)
    for k in range(2):
        whole[:, 5 + k] = found["logits"][:, -1].argmax(-1)
        found = decode(
            {"tokens": whole[:, 5 + k, None], "cache": found["new_cache"], "at": np.int32(5 + k)}
        )
    wanted = step(TABLE, {"tokens": whole, "cache": empty, "at": 0})
    np.testing.assert_allclose(found["logits"][:, 0], wanted["logits"][:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.promotes
def test_inputs_without_a_batch_in_common_are_fixed(tmp_path):
    kernel, graph = np.eye(6, dtype=np.float32), {"edges": EDGES, "nodes": NODES}
    written = onnx.to_onnx(messages, kernel, graph, tmp_path / "a.onnx")
    assert (written.batch, written.examples) == (2, "mixed")
    assert "no batch in common; `shapes=` says" in written.note
    found = onnx.load(written.path)(graph)
    np.testing.assert_allclose(found, messages(kernel, graph), rtol=2e-5, atol=1e-5)


def test_sizes_that_cannot_vary_are_refused(tmp_path):
    x = np.ones((2, 4), np.float32)
    with pytest.raises(ExportError, match=r"with shapes='n, m': .* or name fewer"):
        onnx.to_onnx(lambda w, x: x @ w, np.ones((4, 3)), x, tmp_path / "a", shapes="n, m")
    for shapes in ("n, m, k", "n, 5", "n, 2*m", 3, ("n, m", "n"), {"x": "n, m"}, "n m"):
        with pytest.raises(ExportError, match=r"does not fit the inputs \[2, 4\]: "):
            onnx.to_onnx(lambda w, x: x, {}, x, tmp_path / "a", shapes=shapes)
    assert not list(tmp_path.iterdir())


@pytest.mark.promotes
def test_a_shrunk_network_takes_sequences_of_any_length(tmp_path):
    tokens = RNG.integers(0, 11, (2, 5)).astype(np.int32)
    variables = {
        "table": TABLE,
        "up": RNG.normal(size=(6, 8)).astype(np.float32),
        "down": RNG.normal(size=(8, 6)).astype(np.float32),
    }

    def fn(variables, tokens):
        hidden = jax.nn.relu(attention(variables["table"], tokens) @ variables["up"])
        return (hidden @ variables["down"]).reshape(*tokens.shape, 6).mean(1)

    graph = reg.trace_channels(fn, variables, tokens)
    architecture = morph.shrink(graph, {"up": np.arange(8) % 2 == 0})
    small, own = morph.compact(fn, architecture), architecture.take(variables)
    written = onnx.to_onnx(small, own, tokens, tmp_path / "a.onnx", shapes="batch, length")
    longer = RNG.integers(0, 11, (3, 9)).astype(np.int32)
    found = onnx.load(written.path)(longer)
    np.testing.assert_allclose(found, small(own, longer), rtol=2e-5, atol=1e-5)


PLACES = {
    ".": "is a folder; the export is one file",
    "none/a.onnx": "there is no folder .*none; make it",
    "file/a.onnx": "there is no folder .*file; make it",
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("write", [write for write, _ in TARGETS] + [to_onnx_int8, to_tflite])
def test_where_no_file_can_be_is_told_before_any_work(tmp_path, name, write):
    (tmp_path / "file").touch()
    options = {"calibration": NODES} if write in (to_onnx_int8, to_tflite) else {}
    with pytest.raises(ExportError, match=PLACES[name]):
        write(lambda _, x: 1 / 0, {}, NODES, tmp_path / name, **options)


def test_what_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trial.Trial, "check", stop)
    with pytest.raises(KeyboardInterrupt):
        onnx.to_onnx(lambda _, x: x * 2, {}, NODES, tmp_path / "a.onnx")
    (tmp_path / "b.part").mkdir()
    with pytest.raises(OSError, match=r"b\.part"):
        stablehlo.to_stablehlo(lambda _, x: x * 2, {}, NODES, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b.part"]
