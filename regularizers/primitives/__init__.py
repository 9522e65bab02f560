"""What is known of JAX's primitives: one record each.

Read in this order: `axes` and `terms` (widths), `step` (what passes walk), `record` (the parts),
`elementwise` (the simplest records), the others, and `table`.
"""
