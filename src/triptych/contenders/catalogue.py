"""Baselines by name, as `triptych eval --baseline` takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from triptych.contenders.bm25 import BM25
from triptych.contenders.lucene import Lucene
from triptych.contenders.pieces import Pieces
from triptych.contenders.words import Words
from triptych.errors import InputError
from triptych.eval.contender import Contender
from triptych.model import hub

BASELINES: dict[str, str] = {
    "bm25": "BM25 on words: stems, frequent words left out",
    "bm25:pieces[=MODEL]": "BM25 on the pieces of a model's tokenizer, by default of 'small'",
    "lucene:JAR": "BM25 on Lucene's analysers, by Anserini's fatjar and Java",
    "st:FOLDER[,QUERY PROMPT,DOCUMENT PROMPT]": "a model of sentence-transformers",
    "flag:FOLDER": "a model run by FlagEmbedding",
}
"""What can be given, and what it is."""


def open_baseline(name: str, device: str | None = None) -> Contender:
    """Makes the baseline of a name.

    Args:
        name: One of `BASELINES`.
        device: Of a model; None: a GPU if there is one.

    Raises:
        InputError: For another name.
        MissingExtra: Without the library that it needs.
        ModelError: If a folder holds no model.
    """
    kind, _, rest = name.partition(":")
    makers: dict[str, Callable[[], Contender]] = {
        "bm25": lambda: _bm25(rest, name),
        "lucene": lambda: Lucene(Path(rest).expanduser()),
        "st": lambda: _sentence_model(rest, device),
        "flag": lambda: _flag_model(rest, device),
    }
    if kind not in makers or (kind != "bm25" and not rest):
        raise InputError(f"baseline: got {name!r}; expected one of {', '.join(BASELINES)}")
    return makers[kind]()


def _bm25(rest: str, name: str) -> BM25:
    splitter, _, model = rest.partition("=")
    if splitter in ("", "words") and not model:
        return BM25(Words())
    if splitter == "pieces":
        return BM25(Pieces(hub.resolve(model or "small")))
    raise InputError(f"baseline: got {name!r}; expected bm25, bm25:words or bm25:pieces[=MODEL]")


def _sentence_model(rest: str, device: str | None) -> Contender:
    from triptych.contenders.sentence_models import SentenceModel

    folder, *prompts = rest.split(",")
    if len(prompts) not in (0, 2):
        raise InputError(f"baseline: got st:{rest}; expected a folder, or a folder and the two prompts")
    given = dict(zip(("query_prompt", "document_prompt"), prompts, strict=False))
    return SentenceModel.open(Path(folder).expanduser(), device, **given)


def _flag_model(rest: str, device: str | None) -> Contender:
    from triptych.contenders.flag_models import FlagContender

    return FlagContender.open(Path(rest).expanduser(), device)
