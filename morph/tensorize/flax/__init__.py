"""Layers whose kernels are tensor networks from the start, for Linen and NNX."""
