"""The picture of a sensitivity scan, as in Han et al. (2015), figure 6: one line per layer.

matplotlib is optional, as in `plots`.
"""

import itertools
from pathlib import Path

from experiments.pictures.plots import (
    INK,
    LIGHT,
    MUTED,
    SERIES,
    STYLE,
    plain,
    require_matplotlib,
    shortened,
)
from morph.compress.curves import Sensitivity

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter
except ModuleNotFoundError:  # `require_matplotlib` tells
    pass

_COLORS, _MARKERS, _DASHES = SERIES, "osD^v", ("-", "--", ":", "-.")


def plot_sensitivity(
    scan: Sensitivity, path: str | Path, title: str = "Sensitivity to pruning"
) -> None:
    """Draws accuracy against sparsity.

    Args:
        scan: what to draw.
        path: the file to write; its ending chooses the format (.png, .svg, .pdf).
        title: printed above.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    require_matplotlib()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        ax = figure.subplots()
        ax.axhline(scan.accuracy, color=LIGHT, linewidth=4, zorder=0)
        ax.annotate(
            "the network as it was",
            (0.0, scan.accuracy),
            xytext=(2, 5),
            textcoords="offset points",
            color=MUTED,
            fontsize=7.5,
        )
        styles = itertools.product(_DASHES, zip(_COLORS, _MARKERS, strict=True))
        for (name, accuracies), (dash, (color, marker)) in zip(
            scan.accuracies.items(), itertools.cycle(styles), strict=False
        ):
            ax.plot(
                scan.sparsities,
                accuracies,
                dash,
                marker=marker,
                ms=4,
                linewidth=1.4,
                color=color,
                label=shortened(name.removesuffix("/kernel")),
            )
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=None))
        ax.set_xlim(-0.01, 1.0)
        ax.set_xlabel("weights pruned, of one layer", color=INK)
        ax.set_ylabel(f"accuracy on {scan.examples:,} images")
        ax.grid(color=LIGHT, linewidth=0.5, alpha=0.6)
        ax.set_title(plain(title))
        ax.legend(frameon=False, loc="lower left", ncols=1 + len(scan.accuracies) // 12)
        figure.savefig(path)
