"""Pictures: channel graphs, costs, training curves; matplotlib loads when one is drawn with it."""

from typing import TYPE_CHECKING

from regularizers.lazy import lazy

if TYPE_CHECKING:
    from experiments.pictures.cost_plots import check_path, plot_costs
    from experiments.pictures.plots import plot_tradeoff, plot_training, plot_widths
else:
    __getattr__, __dir__ = lazy(__name__)

__all__ = ["check_path", "plot_costs", "plot_tradeoff", "plot_training", "plot_widths"]
