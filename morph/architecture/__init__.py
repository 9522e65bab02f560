"""What every channel group becomes: shrinking, expanding, taking weights, JSON."""
