"""The line of a pin is the user's own, not that of a library they call."""

import importlib.util
import inspect
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import regularizers as reg

FILE = Path(__file__).name
HELPER = "import jax.numpy as jnp\n\ndef pick(h):\n    return jnp.sort(h, axis=1)\n"
MODEL = "def model(helper, v, x):\n    return helper.pick(x @ v['a']) @ v['z']\n"


@pytest.fixture(autouse=True)
def beside_this_file(monkeypatch):
    """Files below the working directory are named from there."""
    monkeypatch.chdir(Path(__file__).parent)


@pytest.fixture
def installed(tmp_path):
    """Installs a package of one file, as pip would."""

    def install(name, text):
        file = tmp_path / "site-packages" / name / "__init__.py"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return install


@pytest.fixture
def v():
    return {"a": jnp.ones((5, 7)), "z": jnp.ones((7, 3))}


def test_a_helper_library_is_passed_over(installed, v):
    helper = installed("helper", HELPER)

    def fn(v, x):
        return helper.pick(x @ v["a"]) @ v["z"]

    graph = reg.trace_channels(fn, v, jnp.ones((2, 5)))
    line = inspect.getsourcelines(fn)[1] + 1
    (pin,) = [pin for pin in graph.pins() if pin.reason == "sorted along it"]
    assert pin.source.startswith(f"{FILE}:{line}:")
    assert f"{FILE}:{line}:" in graph.explain("a")
    assert "site-packages" not in graph.explain("a")
    shown = graph.explain("a", frames=True).splitlines()
    at = next(k for k, text in enumerate(shown) if "helper/__init__.py:4" in text)
    assert f"{__file__}:{line}:" in shown[at + 1]


def test_of_an_installed_model_it_is_the_models_line(installed, v):
    helper, model = installed("helper", HELPER), installed("net", MODEL).model
    graph = reg.trace_channels(lambda v, x: model(helper, v, x), v, jnp.ones((2, 5)))
    assert f"{FILE}:" in graph.explain("a")  # the lambda is the user's own
    graph = reg.trace_channels(jax.tree_util.Partial(model, helper), v, jnp.ones((2, 5)))
    assert "net/__init__.py:2" in graph.explain("a")


def test_from_elsewhere_it_is_the_whole_path(monkeypatch, tmp_path, v):
    monkeypatch.chdir(tmp_path)
    graph = reg.trace_channels(lambda v, x: jnp.sort(x @ v["a"]) @ v["z"], v, jnp.ones((2, 5)))
    assert f"[{__file__}:" in graph.explain("a")


def test_numpy_is_passed_over():
    class Up(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.ConvTranspose(3, (4,), (2,), transpose_kernel=True, name="up")(x)

    x = jnp.ones((1, 4, 3))
    graph = reg.trace_channels(Up().apply, jax.eval_shape(Up().init, jax.random.key(0), x), x)
    line = inspect.getsourcelines(Up.__call__)[1] + 2
    (pin,) = {pin for pin in graph.pins() if "convolution kernel" in pin.reason}
    assert pin.source.startswith(f"{FILE}:{line}:")
