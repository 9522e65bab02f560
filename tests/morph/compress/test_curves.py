"""The sensitivity scan: against pruning by hand, its distribution, its picture."""

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

from experiments.networks.mlp import MLP
from experiments.pictures.sensitivity_plot import plot_sensitivity
from morph.compress.curves import Sensitivity, sensitivity
from morph.compress.pruning import finished, kept_counts, one_shot, pruned
from morph.compress.training import accuracy_of, train
from morph.network import linen_network
from morph.training.data import Batch

SCAN = Sensitivity(
    accuracy=0.9,
    sparsities=(0.2, 0.5, 0.8),
    accuracies={
        "a/kernel": (0.9, 0.895, 0.3),
        "b/kernel": (0.8, 0.9, 0.9),  # what comes after a fall does not count
        "c/kernel": (0.9, 0.91, 0.9),
    },
    examples=200,
)


@pytest.fixture(scope="module")
def case():
    """A trained network, its variables, and its data."""
    generator = np.random.default_rng(0)
    y = generator.integers(4, size=200)
    x = generator.normal(size=(4, 3, 3, 1))[y] + 0.5 * generator.normal(size=(200, 3, 3, 1))
    network = linen_network(MLP(num_classes=4, widths=(11, 7)))
    data = Batch(x.astype(np.float32), y.astype(np.int32))
    variables = network.init(jax.random.key(0), data.x[:1])
    tx = optax.adam(1e-2)
    return network, train(network, variables, data, tx, steps=50, batch_size=40)[0], data


def test_a_scan_is_pruning_each_layer_alone_in_one_program(case):
    network, variables, data = case
    traces = []

    def predict(variables, x):
        traces.append(x.shape)
        return network.predict(variables, x)

    scan = sensitivity(replace(network, predict=predict), variables, data, sparsities=(0.5, 0, 0.9))
    assert len(traces) == 1
    assert scan.sparsities == (0, 0.5, 0.9)
    assert scan.accuracies.keys() == {f"Dense_{i}/kernel" for i in range(3)}
    assert scan.accuracy == accuracy_of(network, variables, data)
    assert min(own[-1] for own in scan.accuracies.values()) < scan.accuracy - 0.1
    for name, accuracies in scan.accuracies.items():
        assert accuracies[0] == scan.accuracy
        tx = pruned(optax.sgd(0.0), one_shot(0.9), patterns=[name])
        params = variables["params"]
        updates, state = tx.update(jax.tree.map(np.zeros_like, params), tx.init(params), params)
        value = finished(optax.apply_updates(params, updates), state)
        assert accuracies[2] == accuracy_of(network, {"params": value}, data)


def test_what_layers_can_bear_is_scaled_to_a_target():
    assert SCAN.tolerable(0.01) == {"a/kernel": 0.5, "b/kernel": 0.0, "c/kernel": 0.8}
    assert SCAN.tolerable(0.0) == {"a/kernel": 0.2, "b/kernel": 0.0, "c/kernel": 0.8}
    shapes = {"a/kernel": (10, 10), "b/kernel": (5, 2), "c/kernel": (10, 10)}
    densities = SCAN.distribution(0.01).densities(shapes, 1 - 45 / 210)
    expected = {"a/kernel": 0.5, "b/kernel": 1.0, "c/kernel": 0.2}  # of which 80 would be kept
    scaled = {name: share * 45 / 80 for name, share in expected.items()}
    assert densities == pytest.approx(scaled)
    params = {name[0]: {"kernel": np.ones(shape)} for name, shape in shapes.items()}
    tx = pruned(optax.sgd(0.1), one_shot(1 - 80 / 210), SCAN.distribution(0.01))
    _, state = tx.update(params, tx.init(params), params)
    assert kept_counts(finished(params, state)) == {
        "a/kernel": (50, 100), "b/kernel": (10, 10), "c/kernel": (20, 100),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsities": (0.5, 1.0)}, r"at least 0 and below 1, found \(0.5, 1.0\)"),
        ({"sparsities": ()}, r"found \(\)"),
        ({"examples": 0}, "examples must be .* of at least 1, found 0"),
        ({"patterns": ["Dense_3"]}, "'Dense_3' matches no kernel; did you mean"),
    ],
)
def test_bad_input(case, settings, message):
    with pytest.raises(ValueError, match=message):
        sensitivity(*case, **settings)


def test_a_negative_loss():
    with pytest.raises(ValueError, match=r"loss of accuracy is -0\.1"):
        SCAN.tolerable(-0.1)


def test_the_table_and_the_picture(tmp_path):
    assert str(SCAN).splitlines()[0].split() == ["sparsity", "20%", "50%", "80%"]
    assert str(SCAN).splitlines()[1].split() == ["a/kernel", "90.0", "89.5", "30.0"]
    plot_sensitivity(SCAN, tmp_path / "scan.svg")
    drawn = (tmp_path / "scan.svg").read_text()
    assert all(f"<!-- {name} -->" in drawn for name in "abc")
