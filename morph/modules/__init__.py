"""Models of the user's own framework back: a Flax module whose own code runs at the new widths."""
