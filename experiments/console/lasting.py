"""Streams for people that outlast their reader: what is printed never ends what prints."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, cast


class Lasting:
    """A stream that takes all it is given.

    What its encoding lacks becomes a question mark. What cannot be written, because the pipe is
    closed or the disk is full, is left out; the next line is tried again.

    Args:
        stream: to write to.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.failure: Exception | None = None  # the last one

    def write(self, text: str) -> int:
        """Writes as much as can be."""
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self._stream.write(text.encode(error.encoding, "replace").decode(error.encoding))
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self.failure = error
        return len(text)

    def flush(self) -> None:
        """Writes what is left, if it can be."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.failure = error

    def end(self) -> None:
        """Tells on standard error that something is missing, and lets Python end in peace."""
        self.flush()
        if self.failure is None:
            return
        if self is sys.stdout and not isinstance(self.failure, BrokenPipeError):
            print(f"some lines could not be printed: {self.failure}", file=sys.stderr)
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()
            return
        # What is left in the buffer would fail again when Python ends, with another exit status.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        """All else is the stream's."""
        return getattr(self._stream, name)


def lasting(stream: IO[str]) -> IO[str]:
    """The stream, made lasting; as it is if it is already, or if there is none."""
    return (
        stream if stream is None or isinstance(stream, Lasting) else cast(IO[str], Lasting(stream))
    )


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Makes standard output and standard error lasting."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = own = tuple(map(lasting, before))
    try:
        yield
    finally:
        for stream in own:
            if isinstance(stream, Lasting):
                stream.end()
        if own == (sys.stdout, sys.stderr):  # nobody else has put others in their places
            sys.stdout, sys.stderr = before
