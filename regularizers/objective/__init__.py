"""What the loss pays: penalties, their pull on optimizers, and the sum over a network."""
