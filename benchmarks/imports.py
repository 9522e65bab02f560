"""How long importing Morph takes, over importing JAX, Flax and Optax together.

    python benchmarks/imports.py

prints the ratio of the fastest of some fresh interpreters each, taken in turns. Goals: at most 1.25
for `regularizers` and 1.5 for `morph`. Names load when they are first used, so the last rows use
those of README's ten lines, and the cycle.
"""

import subprocess
import sys
import time

from absl import app, flags

BASE = "import jax, flax, optax"
REGULARIZERS = "reg.trace_channels, reg.flops, reg.NetworkRegularizer, reg.proximal"
WAYS = {
    "import regularizers": "import regularizers",
    "import morph": "import morph",
    "JAX, Flax, Optax and regularizers": f"{BASE}, regularizers",
    "JAX, Flax, Optax and morph": f"{BASE}, morph",
    "what analyses": f"import jax, flax, optax, regularizers as reg; {REGULARIZERS}",
    "what shrinks": f"{BASE}, morph; morph.shrink, morph.compact, morph.Architecture",
    "what cycles": f"{BASE}, morph; morph.Cycle",
}

_ROUNDS = flags.DEFINE_integer("rounds", 7, "How often each is timed.", lower_bound=1)


def seconds(code: str) -> float:
    """Of a fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main(argv: list[str]) -> None:
    """Times all, and prints the table."""
    if argv[1:]:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    codes = [BASE, *WAYS.values()]
    times = [[seconds(code) for code in codes] for _ in range(_ROUNDS.value)]
    base, *fastest = map(min, zip(*times, strict=True))
    print(f"{BASE}: {base:.2f} s")
    for name, fast in zip(WAYS, fastest, strict=True):
        print(f"{name:<36} {fast / base:5.2f}")


if __name__ == "__main__":
    app.run(main)
