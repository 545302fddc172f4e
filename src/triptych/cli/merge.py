"""`triptych merge`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from triptych.cli import options as o


class Layouts(StrEnum):
    """Layouts of a checkpoint folder."""

    triptych = "triptych"
    published = "published"
    sentence_transformers = "sentence-transformers"


def merge(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Two or more: 'small', folders of any layout, Hub names."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the merged model.")],
    weights: Annotated[
        list[float] | None,
        typer.Option("--weight", "-w", help="Of each model, in their order; by default all are equal."),
    ] = None,
    layout: Annotated[
        Layouts, typer.Option("--layout", help="Layout of the merged model.")
    ] = Layouts.triptych,
    as_json: o.JsonOption = False,
) -> None:
    """Merge models of one architecture into their weighted mean.

    Fine-tuned models that started from the same weights can be averaged; mixing the starting model in brings back what
    fine-tuning made it forget.

    Example: triptych merge my-model/best small -w 0.7 -w 0.3 -o merged
    """
    from triptych.errors import InputError
    from triptych.model import hub, layouts
    from triptych.model.merge import merge as merged

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output: {output} is there and not an empty folder; expected a new name")
    checkpoint = merged(models, weights)
    layouts.save(checkpoint, output, layout.value, start=hub.resolve(models[0]))
    if as_json:
        from triptych.cli.console import emit

        emit({"model": str(output), "fingerprint": checkpoint.fingerprint})
        return
    from triptych.cli.console import stdout

    stdout().print(f"Load it with: Encoder.from_pretrained({str(output)!r})", soft_wrap=True)
