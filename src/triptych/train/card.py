"""What came of a run: each head before and after with its test, and the model card."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from triptych import __version__
from triptych.model import hub
from triptych.scores.paired import LEVEL, Values, holm, paired_t
from triptych.train.settings import Recipe
from triptych.types import Head

HEADS_OF_TABLE = ("", "before", "after", "change", "p")


@dataclass(frozen=True, slots=True)
class Change:
    """How one head ranks the held-out queries before and after training.

    Attributes:
        name: The head, or the integrated score.
        before: Mean nDCG@k before the first step.
        after: That of the step that was chosen.
        p: Two-sided paired t-test over clusters of queries, with Holm's correction for all that are compared.
    """

    name: str
    before: float
    after: float
    p: float

    @property
    def cells(self) -> tuple[str, ...]:
        """A line of the table under `HEADS_OF_TABLE`."""
        star = "*" if self.p < LEVEL else ""
        change = f"{self.after - self.before:+.4f}{star}"
        return self.name, f"{self.before:.4f}", f"{self.after:.4f}", change, f"{self.p:.2g}"


def changes_of(
    before: Mapping[str, Values], after: Mapping[str, Values], clusters: Sequence[Hashable]
) -> tuple[Change, ...]:
    """Compares what every query got.

    Args:
        before: By head, ``[Q]``.
        after: The same; heads that are not in `before` are left out.
        clusters: Of the queries.
    """
    names = [name for name in after if name in before]
    tests = holm([paired_t(after[name], before[name], clusters) for name in names])
    return tuple(
        Change(name, float(before[name].mean()), float(after[name].mean()), p)
        for name, p in zip(names, tests, strict=True)
    )


def explanation(queries: int, step: int) -> str:
    """What stands below the table."""
    if not step:
        return "No step was better than the model that training began with, which is what was kept."
    return (
        f"{queries} queries. * differs (p < {LEVEL}, paired t-test, Holm's correction). Step {step} was chosen on "
        "these queries: the gain on others may be smaller."
    )


def title(recipe: Recipe) -> str:
    """What stands above the table; the last part of the path alone, since a card is published."""
    name = Path(recipe.evaluation.data or "").name
    split = f" ({recipe.evaluation.split})" if Path(recipe.evaluation.data or "").is_dir() else ""
    return f"nDCG@{recipe.evaluation.k} on {name}{split}"


def model_card(
    recipe: Recipe,
    heads: Sequence[Head],
    rows: Mapping[str, int],
    steps: int,
    changes: Sequence[Change] = (),
    note: str = "",
) -> str:
    """The card of a trained model: how it is loaded, what it was trained on and how, and how it ranks.

    It has no time, place or path in it: the same run writes the same card.

    Args:
        recipe: All settings.
        heads: Those that were trained; none: the model was pre-trained on raw texts.
        rows: By source, rows of the data.
        steps: Steps that the model was trained for.
        changes: Each head before and after.
        note: What stands below the table.
    """
    start = "small (bundled with Triptych)" if recipe.model in hub.BUNDLED else Path(recipe.model).name
    on_hub = recipe.model not in hub.BUNDLED and not Path(recipe.model).exists()
    facts: dict[str, Any] = {
        "library_name": "triptych",
        "pipeline_tag": "sentence-similarity",
        "tags": ["triptych", "sentence-similarity", "feature-extraction", *heads],
        **({"base_model": recipe.model} if on_hub else {}),
    }
    optimizer, objective = recipe.optimizer, recipe.objective
    settings = {
        "starting model": start,
        "trained heads": ", ".join(heads) or "none: RetroMAE on raw texts",
        "frozen": ", ".join(recipe.freeze) or "nothing",
        "steps": steps,
        "learning rate": f"{optimizer.lr:g}, {optimizer.schedule}, warm-up {optimizer.warmup:g}",
        "batch": recipe.data.batch_size or recipe.data.batch_tokens or recipe.data.table or 16,
        **({"temperature": objective.temperature, "passages per query": recipe.data.group} if heads else {}),
        "seed": recipe.seed,
        "Triptych": __version__,
    }
    parts = [
        f"---\n{yaml.safe_dump(facts, sort_keys=False)}---\n",
        f"# A model trained from {start}\n",
        "Dense, lexical and multi-vector representations of a text from one pass, with Triptych:\n",
        "```python\nfrom triptych import Encoder\n\n"
        'encoder = Encoder.from_pretrained("path/of/this/folder")\n'
        'encoder.encode(["A text."])\n```\n',
        *(
            [
                "## Figures\n",
                f"{title(recipe)}:\n",
                _lines(HEADS_OF_TABLE, [change.cells for change in changes]),
                f"{note}\n",
            ]
            * bool(changes)
        ),
        "## Data\n",
        _lines(("source", "rows"), [(name, f"{count:,}") for name, count in rows.items()]),
        "## Settings\n",
        _lines(("", ""), [(name, str(value)) for name, value in settings.items()]),
        "All settings are in the `recipe.yaml` of the run.",
    ]
    return "\n".join(parts) + "\n"


def _lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    texts = [[re.sub(r"([|*])", r"\\\1", cell) for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in texts)
