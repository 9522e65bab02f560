"""For mkdocstrings: examples of docstrings are shown as code."""

import re
from typing import Any

from griffe import Extension, Object


class Doctests(Extension):
    """Gives `Example:` the name of the section whose doctests become blocks of code."""

    def on_object(self, *, obj: Object, **rest: Any) -> None:
        """Before a docstring is read."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
