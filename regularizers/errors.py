"""The base of everything that a person can mend; anything else that is raised is a bug."""

from __future__ import annotations


class MorphError(Exception):
    """What a person can mend, in `regularizers`, `morph` and `experiments`.

    Each class keeps a base of the standard library beside it, such as `ValueError`.
    """


class InputError(MorphError, ValueError):
    """An argument, or data, that a function cannot take."""


class InputTypeError(MorphError, TypeError):
    """An argument of a kind that a function cannot take."""


class DeadGroupWarning(UserWarning):
    """A strength that was given by hand killed a whole group of channels."""


class UnknownNameError(MorphError, KeyError):
    """A name that nothing here has; the message lists near matches."""

    def __str__(self) -> str:
        """The message as it was written; KeyError would quote it."""
        return ", ".join(map(str, self.args))
