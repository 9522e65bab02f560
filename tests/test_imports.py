"""The direction of imports, read off the source: regularizers <- morph <- experiments."""

import ast
import functools
import importlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from regularizers.lazy import homes_of, lazy

ROOT = Path(__file__).parent.parent
# What each package may not import.
ABOVE = {"regularizers": {"morph", "experiments"}, "morph": {"experiments"}, "experiments": set()}
# What neither package brings before one of its names is used.
HEAVY = ("matplotlib", "orbax", "rich", "scipy.optimize", "sklearn", "tensorly", "tensornetwork")
TOUCHES_INTERNALS = "regularizers/primitives/jaxprs.py"
FILES = sorted(path for package in ABOVE for path in (ROOT / package).rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]


@functools.cache
def text_of(path):
    return path.read_text("utf-8")


@functools.cache
def tree_of(path):
    return ast.parse(text_of(path))


def imports(tree):
    """The full name of everything that import statements in `tree` name, relative ones dotted."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found += [f"{module}.{alias.name}" for alias in node.names]
    return found


def test_every_package_has_files():
    assert {name.split("/")[0] for name in NAMES} == set(ABOVE)
    assert TOUCHES_INTERNALS in NAMES


def test_every_kind_of_import_is_found():
    source = "import a.b\nfrom c import d\nfrom .e import f\ndef g():\n    import jax._src\n"
    assert imports(ast.parse(source)) == ["a.b", "c.d", ".e.f", "jax._src"]


def test_imports_go_one_way():
    for path, name in zip(FILES, NAMES, strict=True):
        found = imports(tree_of(path))
        assert {one.split(".")[0] for one in found} & ABOVE[name.split("/")[0]] == set(), name
        assert [one for one in found if one.startswith(".")] == [], name


def test_no_imports_inside_functions():
    for path, name in zip(FILES, NAMES, strict=True):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                assert imports(node) == [], f"{name}:{node.lineno}, inside {node.name}"


def test_one_file_touches_the_internals_of_jax():
    found = [name for path, name in zip(FILES, NAMES, strict=True) if "jax._src" in text_of(path)]
    assert found == [TOUCHES_INTERNALS]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}
LAZY = sorted(name for name, path in MODULES.items() if homes_of(text_of(path)))


def imported(name: str) -> str:
    """The module that an import of `name` loads: `name` itself, or the one that has it."""
    return name if name in MODULES else name.rsplit(".", 1)[0]


def room(module: str) -> str:
    """The folder of a module; a module at the top of its package is a room of its own."""
    folder = module if MODULES[module].name == "__init__.py" else module.rsplit(".", 1)[0]
    return folder if "." in folder else module


def arrows() -> Iterator[tuple[str, str]]:
    """Which module imports which."""
    for module, path in MODULES.items():
        for name in map(imported, imports(tree_of(path))):
            if name in MODULES and name != module:
                yield module, name


def rings(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """What can be reached from each other, alphabetically."""
    after: dict[str, set[str]] = {}
    for tail, head in edges:
        after.setdefault(tail, set()).add(head)
    reach = {node: reachable(node, after) for node in after}
    found = {
        tuple(sorted(m for m in reached if node in reach.get(m, ())))
        for node, reached in reach.items()
        if node in reached
    }
    return sorted(map(list, found))


def reachable(node: str, after: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = [node]
    while ahead:
        new = after.get(ahead.pop(), set()) - seen
        seen |= new
        ahead += new
    return seen


def test_a_ring_is_found():
    assert rings(["ab", "bc", "ca", "cd", "de"]) == [["a", "b", "c"]]
    assert rings(itertools.pairwise("abcd")) == []


def test_modules_have_no_ring():
    assert rings(arrows()) == []


def test_rooms_have_no_ring():
    doors = set(LAZY)  # a surface imports nothing until somebody comes in
    edges = {(room(a), room(b)) for a, b in arrows() if a not in doors}
    assert ("morph.architecture", "morph.kernels") in edges
    assert rings((a, b) for a, b in edges if a != b) == []


def test_packages_load_nothing_heavy():
    code = "import json, sys, morph, regularizers\nprint(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    loaded = json.loads(run.stdout)
    assert {"morph", "regularizers"} <= set(loaded)
    assert [name for name in HEAVY if name in loaded] == []


def test_all_surfaces_are_lazy():
    surfaces = {"morph", "regularizers", "morph.compress", "morph.export", "morph.tensorize"}
    assert surfaces <= set(LAZY)


@pytest.mark.parametrize("package", LAZY)
def test_lazy_names_are_what_their_modules_have(package):
    found, homes = importlib.import_module(package), homes_of(text_of(MODULES[package]))
    assert sorted(homes) == sorted(found.__all__)
    assert set(homes) <= set(dir(found))
    for name, home in homes.items():
        assert f"{package}.{name}" not in MODULES, f"importing the module would hide {name}"
        inner = MODULES.get(f"{home}.{name}")
        value = getattr(found, name)
        assert value is (
            sys.modules[f"{home}.{name}"] if inner else getattr(sys.modules[home], name)
        )


def test_an_unknown_name_of_a_lazy_package():
    load, _ = lazy("morph")
    with pytest.raises(AttributeError, match="module 'morph' has no attribute 'shrunk'"):
        load("shrunk")
