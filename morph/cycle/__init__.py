"""The main road: train a seed network, shrink, expand and retrain it; and many runs at once."""
