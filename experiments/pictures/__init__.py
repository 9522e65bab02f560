"""Pictures: channel graphs, costs, training curves."""
