"""The direction of imports, read off the source: regularizers <- morph <- experiments."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What each package may not import.
ABOVE = {"regularizers": {"morph", "experiments"}, "morph": {"experiments"}, "experiments": set()}
TOUCHES_INTERNALS = "regularizers/primitives/jaxprs.py"
FILES = sorted(path for package in ABOVE for path in (ROOT / package).rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in FILES]

every_file = pytest.mark.parametrize("path", FILES, ids=NAMES)


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


@every_file
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    found = imports(ast.parse(path.read_text()))
    assert {name.split(".")[0] for name in found} & ABOVE[package] == set()
    assert [name for name in found if name.startswith(".")] == []


@every_file
def test_no_imports_inside_functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            assert imports(node) == [], f"{path.name}:{node.lineno}, inside {node.name}"


@every_file
def test_one_file_touches_the_internals_of_jax(path):
    assert ("jax._src" in path.read_text()) == (path == ROOT / TOUCHES_INTERNALS)
