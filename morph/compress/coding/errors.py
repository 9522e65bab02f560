"""What is wrong with a file."""


class ContainerError(ValueError):
    """The bytes are not those of a network that this version can read."""
