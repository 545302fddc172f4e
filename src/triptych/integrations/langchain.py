"""LangChain: a retriever, a vector store and embeddings (``pip install "triptych[langchain]"``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from uuid import uuid4

from pydantic import Field, PrivateAttr, SecretStr

from triptych.encode.encoder import Encoder
from triptych.errors import InputError, require_extra
from triptych.integrations.source import Searchable, open_source
from triptych.types import Encoded, Hit

with require_extra("The retriever for LangChain", "langchain"):
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore


class TriptychRetriever(BaseRetriever):
    """Finds documents with all three heads.

    Attributes:
        index: An open index, its folder, or ``http(s)://host[:port]/name`` for one of a server.
        k: Documents per query.
        filter: Conditions on metadata, as for `triptych.Index.search`.
        weights: Weights of the three scores; None: the default ones.
        search_options: Further options of `triptych.Index.search`.
        api_key: For a server.

    Example:
        >>> TriptychRetriever(index="my.index", k=3).invoke("how do I make coffee?")   # doctest: +SKIP
    """

    index: Any
    k: int = 10
    filter: dict[str, Any] | None = None
    weights: Any = None
    search_options: dict[str, Any] = Field(default_factory=dict)
    api_key: SecretStr | None = None
    _source: Searchable = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Opens the index."""
        key = self.api_key.get_secret_value() if self.api_key else None
        self._source = open_source(self.index, api_key=key)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: dict[str, Any] | None = None,
        weights: Any = None,
    ) -> list[Document]:
        options: dict[str, Any] = {**self.search_options, "filter": filter or self.filter}
        if (chosen := weights or self.weights) is not None:
            options["weights"] = chosen
        hits = self._source.search(query, self.k if k is None else k, **options)
        # A field of the document goes before one of ours.
        return [
            _document(hit.id, hit.text, {"score": hit.score, "scores": dict(hit.scores), **hit.metadata})
            for hit in hits
        ]


class TriptychVectorStore(VectorStore):
    """An index as a vector store. Texts become vectors in the index, by its own model: no embeddings are passed in.

    Args:
        index: As for `TriptychRetriever`.
        api_key: For a server.
    """

    def __init__(self, index: Any, *, api_key: str | None = None) -> None:
        self._source = open_source(index, api_key=api_key)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Adds texts; one whose id is there already is replaced, one without an id gets a random one."""
        listed = list(texts)
        names = [name or str(uuid4()) for name in (ids or [None] * len(listed))]
        if listed or names:
            self._source.add(names, listed, metadatas)
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Removes documents by their ids; unknown ids are no error.

        Raises:
            InputError: Without ids: not everything is deleted by leaving something out.
        """
        if ids is None:
            raise InputError("delete: got no ids; expected a list of them")
        self._source.delete(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by their ids, in this order; those that are not there are left out."""
        found = self._source.get(list(ids))
        return [_document(one["id"], one["text"], one["metadata"]) for one in found if one]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The k best documents; further options as for `triptych.Index.search`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The k best documents, each with the weighted sum of its scores."""
        hits: list[Hit] = self._source.search(query, k, **kwargs)
        return [(_document(hit.id, hit.text, hit.metadata), hit.score) for hit in hits]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> TriptychVectorStore:
        """Adds texts to an index and returns it as a store.

        Args:
            texts: N texts.
            embedding: Not used: an index has its own model.
            metadatas: N JSON objects.
            ids: N ids.
            **kwargs: `index`, which must be given, and `api_key`.

        Raises:
            InputError: Without `index`.
        """
        if "index" not in kwargs:
            raise InputError("from_texts: got no index; expected index=… to add the texts to")
        store = cls(**kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store


class TriptychEmbeddings(Embeddings):
    """The dense vectors of a model, for stores that keep one vector per text.

    Args:
        model: 'small' (bundled), a checkpoint folder, a Hub name such as BAAI/bge-m3, or an `Encoder`.
        **options: As for `Encoder.from_pretrained`.
    """

    def __init__(self, model: str | Encoder = "small", **options: Any) -> None:
        self._encoder = model if isinstance(model, Encoder) else Encoder.from_pretrained(model, **options)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One dense vector per text, of length 1."""
        return _rows(self._encoder.encode_document(texts, outputs=("dense",)))

    def embed_query(self, text: str) -> list[float]:
        """The dense vector of a query, of length 1."""
        return _rows(self._encoder.encode_query([text], outputs=("dense",)))[0]


def _document(name: str, text: str, metadata: Mapping[str, Any]) -> Document:
    return Document(id=name, page_content=text, metadata=dict(metadata))


def _rows(encoded: Encoded) -> list[list[float]]:
    return [] if encoded.dense is None else cast("list[list[float]]", encoded.dense.tolist())
