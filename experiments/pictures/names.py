"""Long names in little room."""

from __future__ import annotations


def tail(name: str, most: int) -> str:
    """A name, or its end: the ends of paths tell layers apart.

    Args:
        name: a path.
        most: characters that there is room for.

    Returns:
        As many of its last parts as there is room for; of a last part that is too long, the end.

    Example:
        >>> tail("Block_0/ConvNormRelu_0/Conv_0", 24), tail("Conv_10", 5)
        ('…/ConvNormRelu_0/Conv_0', '…v_10')
    """
    if len(name) <= most:
        return name
    end = name[-max(1, most - 1) :]
    whole = end.find("/")
    return f"…{end[whole:] if 0 <= whole < len(end) - 1 else end}"
