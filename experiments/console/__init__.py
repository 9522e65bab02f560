"""What commands share: flags, the live display, errors, TensorBoard."""
