"""What the operations of this machine cost: timed once, fitted, and kept in a file."""
