"""Search for agents: the tools of the Model Context Protocol, over stdio or under ``/mcp`` of the server.

Three tools: `search`, `fetch`, and `add` where writing is allowed. They work on a `Service`, as every other form does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field

from triptych import __version__
from triptych.errors import InputError, MissingExtra, TriptychError
from triptych.index.search import SearchOptions
from triptych.serve.service import Service
from triptych.types import Head, Hit

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations
except ImportError as error:
    raise MissingExtra("The Model Context Protocol", "serve") from error

MOST = 100
"""Most hits of a search."""
SHOWN = 1000
"""Characters of a text that a search shows; `fetch` has the rest."""
_INSTRUCTIONS = """Documents are found by meaning, by words and by passages at once. Search with a question or with
key words, in any language; fetch a document by its id to read all of it."""

IndexName = Annotated[str | None, Field(description="Which index; may be left out where there is only one.")]
MayWrite = Callable[[Context[Any, Any]], bool]


class SearchedText(BaseModel):
    """A document that a search found."""

    id: str = Field(description="What fetch takes.")
    title: str = Field(description="Its title, or its id.")
    text: str = Field(description=f"Its first {SHOWN} characters.")
    is_cut: bool = Field(description="Whether there is more.")
    score: float = Field(description="The weighted sum of the single scores.")
    scores: dict[Head, float] = Field(
        description="By meaning (dense), by words (lexical), by passages (multi)."
    )
    metadata: dict[str, Any]


class SearchedTexts(BaseModel):
    """What a search found."""

    results: list[SearchedText] = Field(description="The best first.")


class FetchedText(BaseModel):
    """A whole document."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any]


class AddedTexts(BaseModel):
    """What was stored."""

    added: int
    index: str


class NewText(BaseModel):
    """A document to store."""

    id: str = Field(min_length=1, description="A document that has this id is replaced.")
    text: str = Field(min_length=1)
    metadata: dict[str, Any] = Field(default_factory=dict)


def mcp_server(service: Service, *, may_write: MayWrite | None = None) -> MCPServer[Any]:
    """The protocol's server for the indexes of a service.

    Args:
        service: Started by the caller, who closes it.
        may_write: Whether the sender of a call may add documents; None: there is no tool to add any.

    Raises:
        MissingExtra: (On import) without the extra `serve`.
    """
    with _logging_as_it_was():
        server: MCPServer[Any] = MCPServer(
            "triptych", title="Triptych", instructions=_INSTRUCTIONS, version=__version__
        )
    reads = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    writes = ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
    )

    @server.tool(annotations=reads)
    async def search(  # pyright: ignore[reportUnusedFunction]
        query: Annotated[str, Field(description="A question or key words, in any language.")],
        k: Annotated[int, Field(ge=1, le=MOST, description="How many documents.")] = 10,
        index: IndexName = None,
        filter: Annotated[
            dict[str, Any] | None,
            Field(
                description='On metadata: {"lang": "fr"}, {"lang": ["fr", "de"]}, {"year": {"gte": 2020}}.'
            ),
        ] = None,
        weights: Annotated[
            dict[Head, float] | None,
            Field(
                description='How much each score counts, such as {"dense": 1, "lexical": 0.3, "multi": 1}.'
            ),
        ] = None,
    ) -> SearchedTexts:
        """Finds the documents that fit a query best, with their first lines."""
        options: dict[str, Any] = {"filter": filter}
        if weights is not None:
            options["weights"] = weights
        with _errors_for_the_caller():
            [found] = await service.search(_index(service, index), [query], k, cast("SearchOptions", options))
        return SearchedTexts(results=[_shown(hit) for hit in found.hits])

    @server.tool(annotations=reads)
    async def fetch(  # pyright: ignore[reportUnusedFunction]
        id: Annotated[str, Field(description="As search has given it.")], index: IndexName = None
    ) -> FetchedText:
        """Reads a whole document."""
        with _errors_for_the_caller():
            name = _index(service, index)
            [found] = await service.get(name, [id])
            if found is None:
                raise InputError(f"fetch: got the id {id!r}; expected one of a document of {name}")
        title = _title(found["id"], found["metadata"])
        return FetchedText(id=found["id"], title=title, text=found["text"], metadata=found["metadata"])

    if may_write is not None:

        @server.tool(annotations=writes)
        async def add(  # pyright: ignore[reportUnusedFunction]
            documents: Annotated[list[NewText], Field(min_length=1, max_length=MOST)],
            context: Context[Any, Any],
            index: IndexName = None,
        ) -> AddedTexts:
            """Stores documents, so that later searches find them; one whose id is there already is replaced."""
            if not may_write(context):
                raise ToolError("add: this key allows reading only")
            with _errors_for_the_caller():
                name = _index(service, index)
                ids, texts = [each.id for each in documents], [each.text for each in documents]
                added = await service.add(
                    name, ids, texts, [each.metadata for each in documents], replace=True
                )
            return AddedTexts(added=added, index=name)

    return server


def writes_over_http(service: Service) -> MayWrite | None:
    """Whether the key of an HTTP request allows writing; None on a server that nobody may change."""
    if service.settings.read_only:
        return None

    def may_write(context: Context[Any, Any]) -> bool:
        # The guard has put the right there, and has refused unknown keys.
        scope = cast(Any, context.request_context.request).scope
        return not service.keys or scope.get("state", {}).get("right") == "write"

    return may_write


def _index(service: Service, name: str | None) -> str:
    names = service.index_names
    if name is None and len(names) != 1:
        raise InputError(
            f"index: got none; expected one of {', '.join(names) or 'none, the server has no index'}"
        )
    return name or names[0]


def _shown(hit: Hit) -> SearchedText:
    return SearchedText(
        id=hit.id,
        title=_title(hit.id, hit.metadata),
        text=hit.text[:SHOWN],
        is_cut=len(hit.text) > SHOWN,
        score=hit.score,
        scores=dict(hit.scores),
        metadata=dict(hit.metadata),
    )


def _title(name: str, metadata: Any) -> str:
    title = metadata.get("title")
    return title if isinstance(title, str) and title.strip() else name


@contextmanager
def _errors_for_the_caller() -> Generator[None]:
    """What is wrong with the arguments is said to the agent, which can then mend them."""
    try:
        yield
    except TriptychError as error:
        raise ToolError(str(error)) from error


@contextmanager
def _logging_as_it_was() -> Generator[None]:
    """`MCPServer` configures the root logger, unless it has a handler; that is the application's own business."""
    root, guard = logging.getLogger(), logging.NullHandler()
    root.addHandler(guard)
    try:
        yield
    finally:
        root.removeHandler(guard)
