"""What packages of the zoo expect of jax and of others; nothing of the models themselves."""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

OLD_NAMES = (
    (jax.random, "KeyArray", jax.Array),
    (jax, "tree_map", jax.tree.map),
    (jnp, "DeviceArray", jax.Array),
    (np, "product", np.prod),
    (np, "float_", np.float64),
)
# By adaptor, what its package imports for data, training or weights; none of it is in its models.
ABSENT = {
    "flaxsr": ("tensorflow",),
    "jaxnn": ("torch", "torchvision", "timm"),
    "jimmy": ("py7zr", "torch", "timm"),
    "tunix": (
        *("datasets", "grain", "metrax", "pandas", "perfetto", "qwix", "sentencepiece", "sympy"),
        *("tenacity", "tensorflow_datasets", "jinja2", "numba", "pylatexenc"),
    ),
}
CLIP = jnp.clip


def prepare(adaptor: str) -> None:
    """Makes jax and the rest such that the package of this adaptor can be imported."""
    for module, name, value in OLD_NAMES:
        if name not in vars(module):
            setattr(module, name, value)
    jnp.clip = clip
    if adaptor == "jax_models":
        jnp.linspace = np.linspace  # it reads drop rates off one while it is traced
    sys.modules.setdefault("flax.nnx.nnx", nnx)
    sys.meta_path.append(Absent(ABSENT.get(adaptor, ())))  # last: what is installed goes first


def hide() -> None:
    """Forgets the hollow modules, for libraries that look at what is imported."""
    for name in [name for name, module in sys.modules.items() if isinstance(module, Hollow)]:
        del sys.modules[name]


def clip(x: Any, *bounds: Any, a_min: Any = None, a_max: Any = None, **named: Any) -> Any:
    """`jnp.clip`, also with the keywords it had."""
    renamed = {k: v for k, v in (("min", a_min), ("max", a_max)) if v is not None}
    return CLIP(x, *bounds, **renamed, **named)


class Absent(MetaPathFinder, Loader):
    """Finds hollow modules for packages that are not installed."""

    def __init__(self, names: Sequence[str]):
        self.names = frozenset(names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        known = fullname.split(".", 1)[0] in self.names
        return ModuleSpec(fullname, self, is_package=True) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Hollow(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to execute."""


class Hollow(ModuleType):
    """A module that has every public name, and does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=name)
