"""Results as a reader sees them: hits with their three scores, and what the scores are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from triptych.types import HEADS, DefaultWeights, Head, HeadWeights, Hit

if TYPE_CHECKING:
    from triptych.explain import Explanation, Token

COLORS: dict[Head, str] = {"dense": "cyan", "lexical": "yellow", "multi": "magenta"}
_BAR = 24
_INDENT = " " * 5
_WORDS, _PARTNERS = 8, 24  # most that are shown of one explanation


def heading(query: str, lang: str | None = None) -> Text:
    """A query above its hits."""
    text = Text("? ", style="bold green")
    text.append(query, style="bold")
    if lang:
        text.append(f"  [{lang}]", style="green")
    return text


def legend(weights: HeadWeights, heads: Sequence[Head] = HEADS) -> Text:
    """Which colour is which score, and with which weight it counts."""
    text = Text("score = ", style="dim")
    terms: list[tuple[Head, float]] = [
        (head, getattr(weights, head)) for head in heads if getattr(weights, head)
    ]
    for i, (head, weight) in enumerate(terms):
        text.append(" + " if i else "")
        text.append(f"{weight:g} × ", style="dim").append(f"■ {head}", style=COLORS[head])
        if head == "lexical" and isinstance(weights, DefaultWeights):
            text.append(" coverage³", style=COLORS[head])
    return text


def hit_lines(
    console: Console, rank: int, hit: Hit, weights: HeadWeights, top: float, *, lines: int | None = 2
) -> RenderableType:
    """A hit: rank, score, the three scores and their share in it as a bar, language, id, and the text.

    Args:
        console: Where it will be printed.
        rank: From 1.
        hit: The hit.
        weights: As in the search.
        top: The best score, which has the full bar.
        lines: Of the text; None: all of it.
    """
    head = Text(f"{rank:>3}  ", style="bold")
    head.append(f"{hit.score:.3f} ", style="bold")
    head.append_text(_bar(hit, weights, top))
    for name in HEADS:
        if name in hit.scores:
            head.append(f" {hit.scores[name]:.3f}", style=COLORS[name])
    second = Text(_INDENT)
    if isinstance(lang := hit.metadata.get("lang"), str):
        second.append(f"[{lang}] ", style="green")
    second.append(" ".join(hit.id.split()), style="blue").append(_place(hit), style="dim")
    return Group(head, second, *_body(console, hit.text, lines))


def _place(hit: Hit) -> str:
    """Page and heading of a passage, unless its text begins with the heading."""
    page, heading = hit.metadata.get("page"), hit.metadata.get("heading")
    shown = f" · page {page}" if isinstance(page, int) else ""
    if isinstance(heading, str) and heading not in hit.text.split("\n", 1)[0]:
        shown += f" · {' '.join(heading.split())}"
    return shown


def _further(console: Console, hit: Hit) -> Text:
    """Another hit of a group, in one line."""
    line = Text(f"{_INDENT}+ ", style="dim").append(f"{hit.score:.3f} ", style="bold")
    line.append(" ".join(hit.id.split()), style="blue").append(_place(hit), style="dim").append(
        f" {' '.join(hit.text.split())}", style="default"
    )
    line.truncate(console.width, overflow="ellipsis")
    return line


def _body(console: Console, text: str, lines: int | None) -> list[Text]:
    """The text in indented lines; an ellipsis says that there were more."""
    room = max(20, console.width - len(_INDENT))
    wrapped = list(Text(" ".join(text.split())).wrap(console, room, overflow="fold"))
    shown = wrapped[:lines]
    if len(wrapped) > len(shown):
        shown[-1].truncate(room - 1)
        shown[-1].rstrip()
        shown[-1].append("…")
    for line in shown:
        line.rstrip()
    return [Text(_INDENT).append_text(line) for line in shown]


def _bar(hit: Hit, weights: HeadWeights, top: float) -> Text:
    """The weighted scores side by side; as long as the score in relation to the best one."""
    bar = Text()
    parts = {head: getattr(weights, head) * score for head, score in hit.scores.items()}
    if "lexical" in parts:  # whatever makes it count, it is what the others leave of the sum
        parts["lexical"] = hit.score - sum(part for head, part in parts.items() if head != "lexical")
    parts = {head: max(0.0, part) for head, part in parts.items()}
    unit = _BAR / top if top > 0 else 0.0
    done = shown = 0.0
    for head in HEADS:
        done += parts.get(head, 0.0) * unit
        cells = min(_BAR, round(done)) - round(shown)
        bar.append("█" * max(0, cells), style=COLORS[head])
        shown += max(0, cells)
    bar.append("·" * (_BAR - round(shown)), style="dim")
    return bar


def explanation_lines(explanation: Explanation) -> RenderableType:
    """The shared words with their weights, and the partner of each query token."""
    parts: list[RenderableType] = []
    if "lexical" in explanation.scores:
        parts.append(_lexical_table(explanation))
    if "multi" in explanation.scores:
        parts.append(_partners(explanation))
    return Padding(Group(*parts), (0, 0, 0, len(_INDENT)), expand=False)


def _lexical_table(explanation: Explanation) -> RenderableType:
    if not explanation.lexical:
        return Text("lexical 0: no word in common", style=COLORS["lexical"])
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title_justify="left")
    table.add_column("words in common", style=COLORS["lexical"], overflow="fold")
    counted = explanation.counted
    for name in ("query" if counted is None else "query (rarity)", "document", "product"):
        table.add_column(name, justify="right")
    if counted is not None:
        table.add_column("documents with it", justify="right")
    for match in explanation.lexical[:_WORDS]:
        numbers = (match.query_weight, match.document_weight, match.contribution)
        rarity = () if counted is None else (f"{match.documents:,} of {counted:,}",)
        table.add_row(_label(match.document_token), *(f"{number:.3f}" for number in numbers), *rarity)
    rest = explanation.lexical[_WORDS:]
    if rest:
        table.add_row(f"and {len(rest)} more", "", "", f"{sum(match.contribution for match in rest):.3f}")
    table.add_row(Text("lexical score", style="bold"), "", "", f"{explanation.scores['lexical']:.3f}")
    return table


def _partners(explanation: Explanation) -> RenderableType:
    """``query token→document token similarity``, as many to a line as fit."""
    text, matches = Text(), explanation.text_tokens
    for match in matches[:_PARTNERS]:
        dim = match.document_token.kind != "text"
        text.append(_without_breaks(match.query_token), style=COLORS["multi"])
        text.append("→", style="dim").append(
            _without_breaks(match.document_token), style="dim" if dim else ""
        )
        text.append("\u00a0").append(f"{match.similarity:.2f}", style="bold").append("   ")
    if (rest := len(matches) - _PARTNERS) > 0:
        text.append(f"and {rest} more")
    text.append(f"  multi score {explanation.scores['multi']:.3f}", style="bold")
    number, mean = explanation.left_out
    if number:
        what = f"{number} special or prefix token{'s'[: number > 1]}"
        text.append(f" (the mean of these and of {what} with {mean:.2f} on average)", style="dim")
    return Group(Text("query token → nearest document token, similarity", style="dim"), text)


def _without_breaks(token: Token) -> str:
    """A token that a line break does not cut."""
    return token.piece.replace(" ", "\u00a0")


def _label(token: Token) -> str:
    """A piece, with its word where that tells more and is one (not a whole clause without blanks)."""
    word = token.word.strip(".,;:!?()[]«»\"'„“”")
    if word == token.piece or len(word) > 20 or token.kind != "text":
        return token.piece
    return f"{token.piece} ({word})"


def print_hits(
    console: Console,
    hits: Sequence[Hit],
    weights: HeadWeights,
    explanations: Sequence[Explanation] = (),
    *,
    lines: int | None = 2,
    offset: int = 0,
) -> None:
    """Prints the hits of one query from rank `offset` + 1 on, each with its explanation if there are any."""
    if not hits:
        console.print(Text("     nothing found", style="dim"))
    top = max((hit.score for hit in hits), default=0.0)
    for i, hit in enumerate(hits):
        console.print(hit_lines(console, offset + i + 1, hit, weights, top, lines=lines))
        for further in hit.more:
            console.print(_further(console, further))
        if explanations:
            console.print(explanation_lines(explanations[i]))
            console.print()
