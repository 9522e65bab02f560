"""Coding: compressed kernels as bytes, and back bit for bit.

Read in this order: `symbols` (Huffman and ANS), `gaps` (sparse indices), `leaves` (one kernel),
`container` (a file of a network).
"""
