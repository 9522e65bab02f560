"""What a reader may count on in the folders of the three packages."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_LINES = 420
FILES = sorted(
    path
    for package in ("regularizers", "morph", "experiments")
    for path in (ROOT / package).rglob("*.py")
)


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(ROOT).as_posix() for path in FILES])
def test_a_file_can_be_read_in_one_go(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


# Modules of `morph/` that are tested in another file than the mirrored one. A new module has its
# own; a row goes when its module gets one.
ELSEWHERE = {
    "architecture/test_architecture.py": ["architecture/parts"],
    "compress/coding/test_container.py": ["compress/coding/table"],
    "cycle/test_cycle.py": [
        "cycle/asked", "cycle/baseline", "cycle/context", "cycle/expand", "cycle/measure",
        "cycle/phase", "cycle/retrain", "cycle/seed", "cycle/shrink", "cycle/store",
        "cycle/tensorize",
    ],
    "cycle/test_sweep.py": ["cycle/members"],
    "test_settings.py": ["cycle/config"],
    "tensorize/test_plan.py": [
        "kernels/planned", "tensorize/layers", "tensorize/options",
    ],
    "resize/test_compact.py": ["resize/emission"],
    "resize/test_lacking.py": ["resize/silence"],
    "tensorize/flax/test_layers.py": [
        "tensorize/flax/apply", "tensorize/flax/linen_layers", "tensorize/flax/nnx_layers",
    ],
}  # fmt: skip


def test_every_module_of_morph_has_its_test_file():
    tests = ROOT / "tests" / "morph"
    modules = [
        path.relative_to(ROOT / "morph")
        for path in (ROOT / "morph").rglob("*.py")
        if not path.name.startswith("__")
    ]
    alone = {
        path.with_suffix("").as_posix()
        for path in modules
        if not (tests / path.parent / f"test_{path.name}").exists()
    }
    assert alone == {module for row in ELSEWHERE.values() for module in row}
    assert [name for name in ELSEWHERE if not (tests / name).exists()] == []
