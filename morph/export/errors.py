"""What goes wrong when a network is written for elsewhere."""


class ExportError(ValueError):
    """A network that a target cannot run, or data that do not fit it."""
