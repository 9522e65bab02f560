"""Training a network: data, losses, optimizers, the step, and the loop that runs it."""
