"""Writing a file with sizes that may vary where the function allows it, and trying it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from morph.errors import ExportError
from morph.export.any_size import of_any_size
from morph.export.exported import (
    INDEPENDENT,
    MIXED,
    UNKNOWN,
    Exported,
    Runner,
    batch_opened,
    example_struct,
    has_batch,
    open_sizes,
    opened,
    place_of,
    sizes_at,
    written,
)
from morph.export.frozen import one_by_one
from morph.export.trial import Trial

NO_BATCH = "the sizes are fixed: the inputs have no batch in common; `shapes=` says which may vary"


def attempt(
    target: str,
    fn: Callable[..., Any],
    variables: Any,
    example: Any,
    path: str | Path,
    shapes: Any,
    constraints: Sequence[str],
    *,
    make: Callable[[Callable[..., Any], Any, str], bytes],
    load: Callable[[Path], Runner] | None,
    explained: Callable[[Exception, Any], Exception],
) -> Exported:
    """Writes a function; its batch may vary, if it can be, or the sizes that are named.

    Args:
        target: see `Exported`.
        fn: `fn(variables, x)`.
        variables: its weights.
        example: inputs.
        path: of the file.
        shapes: see `exported.opened`; None for the batch.
        constraints: see `exported.opened`.
        make: `(fn, shapes, what is known of examples)`, the file.
        load: opens it; None if it does not run here.
        explained: the error of what cannot be written, or is not right, at those shapes.

    Raises:
        ExportError: if it cannot be written, or gives something else.
    """
    place_of(path)
    structs = example_struct(example)
    trial = Trial(fn, variables, example, structs)

    def check(draft: Path, sizes: Any) -> None:
        if load is not None:
            trial.check(load(draft), sizes)

    def wrote(
        form: Callable[..., Any], given: Any, examples: str, sizes: Any, note: str
    ) -> Exported:
        data = make(form, given, examples)
        batch = next(x.shape[0] for x in jax.tree.leaves(given) if x.shape)
        return written(
            target, path, data, batch if isinstance(batch, int) else None, examples=examples,
            note=note, check=lambda draft: check(draft, sizes),
        )  # fmt: skip

    if shapes is not None:
        given = opened(structs, shapes, constraints)
        known, sizes = open_sizes(structs, given), trial.sizes(given)
        ones = sizes_at(given, dict.fromkeys(known, 1))  # for which code often is another
        problem: Exception | None = None
        for form, tried in ((fn, sizes), (of_any_size(fn, known), [*sizes, ones])):
            try:
                return wrote(form, given, UNKNOWN, tried, "")
            except Exception as error:  # whatever the user's code makes of a size without a value
                problem = problem or error
        raise ExportError(
            f"cannot write this function with shapes={shapes!r}: {first_line(problem)}. State "
            "what these sizes satisfy (constraints=), or name fewer"
        ) from problem
    note, examples, sizes = NO_BATCH, MIXED, [structs]
    if has_batch(structs):
        note, examples, given = "", UNKNOWN, batch_opened(structs)
        sizes = trial.sizes(given)
        for form in (fn, of_any_size(fn, open_sizes(structs, given)), one_by_one(fn)):
            try:
                if form is not fn and examples == UNKNOWN:
                    examples = trial.mixing()
                if form is not fn and examples != INDEPENDENT:
                    break
                return wrote(form, given, UNKNOWN, sizes, "")
            except Exception as error:  # whatever the user's code makes of it
                cause = f"{type(error).__name__}: {first_line(error)}"
                note = note or f"the batch is fixed: {cause}"
    try:
        return wrote(fn, structs, examples, sizes[: 1 + (examples == INDEPENDENT)], note)
    except OSError:
        raise
    except Exception as error:
        told = explained(error, structs)
        raise told from (None if told is error else error)


def first_line(error: Exception | None) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).split("\n")[0][:300]
