"""Any dense model of sentence-transformers, from a folder, as a contender."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from triptych.contenders.folders import fingerprint, in_blocks, the_folder
from triptych.errors import InputError, MissingExtra
from triptych.types import Encoded, HeadWeights


@dataclass(frozen=True, slots=True, eq=False)
class SentenceModel:
    """A SentenceTransformer in an evaluation.

    Texts are encoded as the library's own retrieval methods do it, with the folder's prompts for queries and
    documents. Vectors are brought to length 1 where the folder asks for the cosine (or for nothing).

    Attributes:
        model: The library's object.
        name: For tables.
        fingerprint: See `triptych.eval.contender.VectorModel`.
        query_prompt: In place of the folder's; None: the folder's.
        document_prompt: The same for documents.
    """

    model: Any
    name: str
    fingerprint: str
    query_prompt: str | None = None
    document_prompt: str | None = None

    @classmethod
    def open(cls, folder: Path, device: str | None = None, **prompts: str | None) -> SentenceModel:
        """Loads a folder.

        Args:
            folder: A sentence-transformers folder, or one of Hugging Face (then the mean of the tokens is taken).
            device: None: a GPU if there is one.
            prompts: `query_prompt` and `document_prompt`.

        Raises:
            MissingExtra: Without sentence-transformers.
            ModelError: If the folder holds no model.
            InputError: If its vectors are compared otherwise than by cosine or inner product.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtra("a sentence-transformers model", "parity") from error
        model: Any = SentenceTransformer(str(the_folder(folder)), device=device, local_files_only=True)
        similarity = str(model.similarity_fn_name)
        if similarity not in ("cosine", "dot"):
            raise InputError(f"{folder}: compares by {similarity!r}; expected 'cosine' or 'dot'")
        facts = {"prompts": prompts, "length": model.max_seq_length}
        return cls(model, folder.resolve().name, fingerprint(folder, facts), **prompts)

    @property
    def modes(self) -> Mapping[str, HeadWeights]:
        """Dense alone."""
        return {"dense": HeadWeights(1, 0, 0)}

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a reader wants to know of it."""
        return {
            "library": f"sentence-transformers {version('sentence-transformers')}",
            "device": str(self.model.device),
            "dimensions": self.model.get_embedding_dimension(),
            "length": self.model.max_seq_length,
            "prompts": {**self.model.prompts, **self._given},
        }

    @property
    def _given(self) -> dict[str, str]:
        given = {"query": self.query_prompt, "document": self.document_prompt}
        return {task: prompt for task, prompt in given.items() if prompt is not None}

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """Encodes queries."""
        return self._encode(self.model.encode_query, texts, self.query_prompt)

    def encode_documents(self, texts: Iterable[str], block: int) -> Iterator[Encoded]:
        """Encodes documents in blocks."""

        def encode(part: Sequence[str]) -> Encoded:
            return self._encode(self.model.encode_document, part, self.document_prompt)

        return in_blocks(texts, block, encode)

    def _encode(self, method: Any, texts: Sequence[str], prompt: str | None) -> Encoded:
        options = {} if prompt is None else {"prompt": prompt}
        normalize = str(self.model.similarity_fn_name) == "cosine"
        vectors = method(list(texts), normalize_embeddings=normalize, show_progress_bar=False, **options)
        width = int(self.model.get_embedding_dimension())
        return Encoded(dense=np.asarray(vectors, dtype=np.float32).reshape(len(texts), width))
