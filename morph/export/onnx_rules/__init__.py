"""What each primitive of JAX is in ONNX: one rule per primitive, in one table (`table.RULES`)."""
