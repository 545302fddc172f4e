"""Gives a model room for longer texts, and turns its dropout off: the start of the bundled model's training.

    python recipes/small/extend_model.py small --positions 8192 --no-dropout --into build/first

The new positions repeat the old ones (see `triptych.model.backbone.extend_positions`): training has to make
something of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

from triptych.train.settings import read
from triptych.train.start import export, prepare


def main() -> None:
    """Writes the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("--positions", type=int, required=True)
    parser.add_argument("--no-dropout", action="store_true")
    parser.add_argument("--into", type=Path, required=True)
    arguments = parser.parse_args()
    recipe = read(None, [f"model={arguments.model}", f"extend_positions={arguments.positions}"])
    checkpoint = prepare(recipe)
    if arguments.no_dropout:
        config = cast(Any, checkpoint.model.backbone).config
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    export(recipe, checkpoint, arguments.into)


if __name__ == "__main__":
    main()
