"""Runs Morph: command-line flags, data sets, seed networks and configurations."""
