"""`triptych score`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.data.records import Document, Query
    from triptych.encode.encoder import Encoder
    from triptych.types import Floats, Head, HeadWeights, Hit


def score(
    query: Annotated[
        list[str] | None, typer.Option("--query", "-q", metavar="TEXT", help="A query; repeatable.")
    ] = None,
    document: Annotated[
        list[str] | None, typer.Option("--document", "-d", metavar="TEXT", help="A document; repeatable.")
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            "--queries", metavar="FILE", help="Queries: plain lines, TSV, CSV or JSON Lines; '-' is stdin."
        ),
    ] = None,
    documents: Annotated[
        list[str] | None,
        typer.Option("--documents", metavar="INPUT", help="Documents: a file, a folder or '-'; repeatable."),
    ] = None,
    weights: o.WeightsOption = None,
    explain: o.ExplainOption = False,
    full: Annotated[bool, typer.Option("--full", help="Show whole texts instead of two lines.")] = False,
    format: o.FormatOption = None,
    model: o.ModelOption = "small",
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = o.Dtype.auto,
    as_json: o.JsonOption = False,
) -> None:
    """Score every query with every document, without an index; for re-ranking, or to look at a model.

    Example: triptych score -q "what is a moka pot" -d "A moka pot brews coffee." -d "Ein Topf." --explain
    """
    from triptych.cli.inputs import model_name
    from triptych.encode.encoder import Encoder

    wanted = o.parse_weights(weights)
    asked, given = _texts(query, queries, document, documents, format)
    encoder = Encoder.from_pretrained(model_name(model), device=device, dtype=dtype.value)
    used = _weights(encoder, wanted)
    ranked = rank(encoder, asked, given, used)
    for one, hits in zip(asked, ranked, strict=True):
        _show(encoder, one, hits, used, (explain, full, as_json))


def rank(
    encoder: Encoder, queries: list[Query], documents: list[Document], weights: HeadWeights
) -> list[list[Hit]]:
    """All documents for each query, the best first, with the scores of all heads that the model has."""
    from triptych.cli.inputs import metadata_of
    from triptych.ops.scores import combine, head_scores
    from triptych.types import Hit

    sides = (
        encoder.encode_query([query.text for query in queries]),
        encoder.encode_document([document.content for document in documents]),
    )
    scores: dict[Head, Floats] = {head: head_scores(*sides, head) for head in encoder.heads}
    total = combine(scores, weights)
    ranked: list[list[Hit]] = []
    for i in range(len(queries)):
        hits = [
            Hit(
                document.id,
                float(total[i, j]),
                _of_pair(scores, i, j),
                document.content,
                metadata_of(document),
            )
            for j, document in enumerate(documents)
        ]
        ranked.append(sorted(hits, key=lambda hit: (-hit.score, hit.id)))
    return ranked


def _of_pair(scores: Mapping[Head, Floats], i: int, j: int) -> dict[Head, float]:
    return {head: float(values[i, j]) for head, values in scores.items()}


def _texts(
    query: list[str] | None,
    queries: str | None,
    document: list[str] | None,
    documents: list[str] | None,
    format: o.Format | None,
) -> tuple[list[Query], list[Document]]:
    from triptych.cli.inputs import Inputs
    from triptych.data.documents import read_queries
    from triptych.data.records import Document, Fields, Query

    if bool(query) == (queries is not None):
        raise InputError("score: give either --query or --queries")
    if bool(document) == bool(documents):
        raise InputError("score: give either --document or --documents")
    if queries == "-" and "-" in (documents or []):
        raise InputError(
            "score: '-' for queries and documents; expected it once, since there is one standard input"
        )
    if any(not text.strip() for text in query or []):
        raise InputError("--query: got an empty text")
    asked = (
        list(read_queries(queries))
        if queries is not None
        else [Query(f"query-{i + 1}", text) for i, text in enumerate(query or [])]
    )
    if documents:
        return asked, list(Inputs(documents, format, Fields()).read())
    return asked, [Document(f"document-{i + 1}", text) for i, text in enumerate(document or [])]


def _weights(encoder: Encoder, wanted: HeadWeights | None) -> HeadWeights:
    """The given weights, or the default ones for the heads that the model has."""
    from triptych.types import HEADS, HeadWeights

    default = HeadWeights()
    return wanted or HeadWeights(
        *(getattr(default, head) if head in encoder.heads else 0.0 for head in HEADS)
    )


def _show(
    encoder: Encoder, query: Query, hits: list[Hit], weights: HeadWeights, flags: tuple[bool, bool, bool]
) -> None:
    from triptych.cli import draw
    from triptych.cli.console import emit, stdout
    from triptych.explain import explain

    explained, full, as_json = flags
    explanations = explain(encoder, query.text, [hit.text for hit in hits]) if explained else []
    if not as_json:
        console = stdout()
        console.print(draw.heading(query.text))
        console.print(draw.legend(weights, encoder.heads))
        draw.print_hits(console, hits, weights, explanations, lines=None if full else 2)
        console.print()
        return
    for i, hit in enumerate(hits):
        line: dict[str, Any] = {"query_id": query.id, "query": query.text, **draw.hit_json(i + 1, hit)}
        if explanations:
            line["explanation"] = draw.explanation_json(explanations[i])
        emit(line)
