"""Compress: kernels of fewer bits, and files of them."""
