"""`triptych search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.encode.encoder import Encoder
    from triptych.explain import Explanation
    from triptych.index.index import Index
    from triptych.types import HeadWeights, Hit


def search(
    index: Annotated[
        str, typer.Argument(help="Folder of the index, or a server's address.", metavar="INDEX")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(help="One query ('-': queries from standard input).", metavar="QUERY"),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            "--queries",
            "-q",
            metavar="FILE",
            help="Queries: plain lines, TSV, CSV or JSON Lines; '-' is stdin.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("--top", "-k", help="Hits a query.")] = 10,
    weights: o.WeightsOption = None,
    routes: Annotated[
        str | None,
        typer.Option(
            "--routes",
            "-r",
            help="Heads that recall candidates, among dense,lexical,multi; by default dense,lexical.",
        ),
    ] = None,
    candidates: Annotated[
        int, typer.Option("--candidates", "-c", help="Documents that each route recalls.")
    ] = 200,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            "-f",
            metavar="CONDITION",
            help="On metadata: lang=fr (again with lang=de: either), year>=2020, year<2025. All must hold.",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            help="exact: all scores of all candidates; paper: a score that a route did not give is 0.",
        ),
    ] = "exact",
    explain: o.ExplainOption = False,
    full: Annotated[bool, typer.Option("--full", help="Show whole texts instead of two lines.")] = False,
    model: o.OwnModelOption = None,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = o.Dtype.auto,
    as_json: o.JsonOption = False,
) -> None:
    """Search an index with all three heads.

    The dense and the lexical head recall candidates; all heads score them exactly; the weighted sum ranks them.

    Example: triptych search my.index how do I boil an egg --filter lang=en --explain
    """
    from triptych.cli.options import queries_of

    if protocol not in ("exact", "paper"):
        raise InputError(f"--protocol: got {protocol!r}; expected exact or paper")
    asked = queries_of(words or [], queries)
    settings: dict[str, Any] = {
        "weights": o.parse_weights(weights),
        "routes": o.parse_heads(routes, "--routes"),
        "candidates": candidates,
        "filter": o.parse_filter(filter or []),
        "protocol": protocol,
    }
    with open_index(index, model, device, dtype) as opened:
        found = opened.search([query.text for query in asked], k, **settings) if asked else []
        for query, hits in zip(asked, found, strict=True):
            explained = explanations(opened, query.text, hits) if explain else []
            if as_json:
                _emit(query.id, query.text, hits, explained)
            else:
                _draw(query.text, hits, explained, _weights_used(opened, settings["weights"]), full)


def open_index(place: str, model: str | None, device: str | None, dtype: o.Dtype) -> Index:
    """Opens an index with its recorded model, or that model from another place, on the chosen device."""
    from triptych.cli.options import model_name
    from triptych.encode.encoder import Encoder
    from triptych.index.index import Index

    with Index.open(place) as index:
        source = index.info()["model"]["source"]
    encoder = Encoder.from_pretrained(model_name(model or source), device=device, dtype=dtype.value)
    return Index.open(place, encoder)


def explanations(index: Index, query: str, hits: list[Hit]) -> list[Explanation]:
    """What the hits' scores are made of, computed from their texts."""
    from typing import cast

    from triptych.explain import explain

    return explain(cast("Encoder", index.encoder), query, [hit.text for hit in hits])


def _weights_used(index: Index, weights: HeadWeights | None) -> HeadWeights:
    """The given weights, or the default ones for the heads that the index has."""
    from triptych.types import HEADS, HeadWeights

    held = index.info()["layout"]["widths"]
    default = HeadWeights()
    return weights or HeadWeights(*(getattr(default, head) if head in held else 0.0 for head in HEADS))


def _emit(query_id: str, query: str, hits: list[Hit], explained: list[Explanation]) -> None:
    from triptych.cli import show as draw
    from triptych.cli.show import emit

    for i, hit in enumerate(hits):
        line = {"query_id": query_id, "query": query, **draw.hit_json(i + 1, hit)}
        if explained:
            line["explanation"] = draw.explanation_json(explained[i])
        emit(line)


def _draw(
    query: str, hits: list[Hit], explained: list[Explanation], weights: HeadWeights, full: bool
) -> None:
    from triptych.cli import show as draw
    from triptych.cli.show import stdout

    console = stdout()
    console.print(draw.heading(query))
    console.print(draw.legend(weights))
    draw.print_hits(console, hits, weights, explained, lines=None if full else 2)
    console.print()
