"""Values that stand where kernels stood: tensor networks and compressed kernels."""
