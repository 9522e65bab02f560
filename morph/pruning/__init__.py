"""Pruning a trained network in one call, on a calibration set, without training."""
