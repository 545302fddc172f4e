"""mteb runs every mode of a model on a small task made here, and finds the same nDCG@10 as we do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import checkpoints
from triptych import Encoder
from triptych.collections.base import Wanted
from triptych.collections.catalogue import read_collections
from triptych.collections.mteb import collections_of_task
from triptych.errors import InputError
from triptych.eval.systems import MODES
from triptych.mteb import DenseModel, SearchModel
from triptych.scores.on_numpy import ndcg

mteb = pytest.importorskip("mteb", reason="the extra 'eval' is not installed")
datasets = pytest.importorskip("datasets")

pytestmark = [  # of mteb and what it imports
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

RANDOM = np.random.default_rng(3)
DOCUMENTS = {
    f"d{number:02}": " ".join(RANDOM.choice(checkpoints.WORDS, int(RANDOM.integers(2, 12))))
    for number in range(40)
}
QUERIES = {f"q{number}": " ".join(RANDOM.choice(checkpoints.WORDS, 4)) for number in range(9)}
QRELS = {
    query: {
        str(doc): int(RANDOM.integers(0, 3)) for doc in RANDOM.choice(sorted(DOCUMENTS), 6, replace=False)
    }
    | {"d00": 1}
    for query in QUERIES
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = checkpoints.make("xlm-roberta", tmp_path_factory.mktemp("model"))
    return Encoder.from_pretrained(
        folder, device="cpu", dtype="float32", query_prefix="query ", document_prefix="passage "
    )


def make_task(titles: bool = False, top_ranked: dict[str, list[str]] | None = None) -> Any:
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class Small(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="Small" + "Titles" * titles + "Top" * bool(top_ranked),
            description="Made for a test.",
            reference=None,
            dataset={"path": "none", "revision": "1"},
            type="Reranking" if top_ranked else "Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            date=None,
            domains=None,
            task_subtypes=None,
            license=None,
            annotations_creators=None,
            dialect=None,
            sample_creation=None,
            bibtex_citation="",
        )

        def load_data(self, **_: Any) -> None:
            corpus = [{"id": id_, "text": text} for id_, text in DOCUMENTS.items()]
            if titles:
                parts = [(row["id"], *row["text"].split(" ", 1)) for row in corpus]
                corpus = [{"id": id_, "title": title, "text": text} for id_, title, text in parts]
            queries = [{"id": id_, "text": text} for id_, text in QUERIES.items()]
            split = {
                "corpus": datasets.Dataset.from_list(corpus),
                "queries": datasets.Dataset.from_list(queries),
                "relevant_docs": QRELS,
                "top_ranked": top_ranked,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Small()


def main_score(model: Any, task: Any) -> float:
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return float(result.task_results[0].scores["test"][0]["ndcg_at_10"])


def ours(encoder: Encoder, mode: str) -> float:
    scores = encoder.score(list(QUERIES.values()), list(DOCUMENTS.values()), MODES[mode])
    place = {id_: row for row, id_ in enumerate(DOCUMENTS)}
    gains = [{place[doc]: value for doc, value in QRELS[query].items()} for query in QUERIES]
    assert len(np.unique(scores)) > 0.9 * np.count_nonzero(scores > 0)  # ties would go by other rules
    return float(ndcg(scores, gains).mean())


def test_a_task_is_a_test_collection_of_ours() -> None:
    [collection] = collections_of_task(make_task(), Wanted())
    assert {document.id: document.text for document in collection.corpus} == DOCUMENTS
    assert collection.queries == QUERIES
    assert collection.qrels == QRELS


@pytest.mark.filterwarnings("ignore")
def test_a_name_that_is_no_task_is_refused() -> None:
    with pytest.raises(InputError, match="mteb:NoSuchRetrieval: no such task"):
        read_collections("mteb:NoSuchRetrieval")


def test_both_protocols_are_fulfilled(encoder: Encoder) -> None:
    from mteb.models import EncoderProtocol, SearchProtocol

    assert isinstance(DenseModel(encoder), EncoderProtocol)
    assert not isinstance(DenseModel(encoder), SearchProtocol)
    assert isinstance(SearchModel(encoder), SearchProtocol)
    assert not isinstance(SearchModel(encoder), EncoderProtocol)


def test_the_dense_model_gives_our_ndcg(encoder: Encoder) -> None:
    assert main_score(DenseModel(encoder), make_task()) == pytest.approx(ours(encoder, "dense"), abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("block", [7, 1024])
def test_every_mode_gives_our_ndcg_in_blocks_of_any_size(encoder: Encoder, mode: str, block: int) -> None:
    found = main_score(SearchModel(encoder, mode, block=block), make_task())
    assert found == pytest.approx(ours(encoder, mode), abs=1e-5)


def test_titles_go_in_front_in_both_models(encoder: Encoder) -> None:
    plain = ours(encoder, "dense")  # the title is the text's first word, so that both together are the text
    task = make_task(titles=True)
    assert main_score(DenseModel(encoder), task) == pytest.approx(plain, abs=1e-5)
    assert main_score(SearchModel(encoder, "dense"), task) == pytest.approx(plain, abs=1e-5)


def test_a_reranking_task_ranks_only_what_it_names(encoder: Encoder) -> None:
    named = {query: sorted(DOCUMENTS)[number : number + 12] for number, query in enumerate(QUERIES)}
    model = SearchModel(encoder, "all", block=5)
    model.index(datasets.Dataset.from_list([{"id": id_, "text": text} for id_, text in DOCUMENTS.items()]))
    queries = datasets.Dataset.from_list([{"id": id_, "text": text} for id_, text in QUERIES.items()])
    found = model.search(queries, top_k=10, top_ranked=named)
    for row, (query, documents) in enumerate(found.items()):
        expected = encoder.score(list(QUERIES.values())[row], [DOCUMENTS[doc] for doc in named[query]])[0]
        best = np.argsort(-expected, kind="stable")[:10]
        assert list(documents) == [named[query][place] for place in best]
        np.testing.assert_allclose(list(documents.values()), expected[best], atol=1e-5)
    assert main_score(model, make_task(top_ranked=named)) > 0


def test_weights_and_instructions_count(encoder: Encoder) -> None:
    model = SearchModel(encoder, "all", (0.5, 0, 0.5))
    model.index(datasets.Dataset.from_list([{"id": "a", "text": "hello world"}]))
    queries = [
        {"id": "1", "text": "what is", "instruction": "a model"},
        {"id": "2", "text": "x", "instruction": None},
    ]
    found = model.search(datasets.Dataset.from_list(queries), top_k=3)
    expected = encoder.score(["what is a model", "x"], ["hello world"], (0.5, 0, 0.5))
    assert [scores["a"] for scores in found.values()] == pytest.approx(expected[:, 0].tolist(), abs=1e-5)


def test_conversations_are_joined(encoder: Encoder) -> None:
    model = SearchModel(encoder, "dense")
    model.index(datasets.Dataset.from_list([{"id": "a", "text": "hello world"}]))
    turns = [{"role": "user", "content": "what is"}, {"role": "user", "content": "text"}]
    found = model.search(datasets.Dataset.from_list([{"id": "1", "text": turns}]), top_k=1)
    expected = encoder.score("user: what is; user: text", ["hello world"], (1, 0, 0))[0, 0]
    assert found["1"]["a"] == pytest.approx(expected, abs=1e-5)


def test_the_meta_data_name_model_mode_and_fingerprint(encoder: Encoder) -> None:
    meta = SearchModel(encoder, "dense+lexical").mteb_model_meta
    assert meta.name is not None
    assert meta.name.endswith("-dense+lexical")
    assert meta.revision == encoder.fingerprint
    assert meta.model_type == ["hybrid"]
    assert DenseModel(encoder).mteb_model_meta.model_type == ["dense"]
    assert meta.use_instructions


def test_similarities_are_cosines_of_all_or_of_pairs(encoder: Encoder) -> None:
    model = DenseModel(encoder)
    vectors = model.encode([{"text": ["hello"]}, {"text": ["world", ""]}])
    assert vectors.shape == (3, checkpoints.WIDTH)
    whole = model.similarity(vectors, vectors[:2])
    np.testing.assert_allclose(whole, vectors @ vectors[:2].T, atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(vectors, vectors), np.ones(3), atol=1e-5)


def test_what_cannot_be_is_refused(encoder: Encoder) -> None:
    with pytest.raises(InputError, match="modes: got 'some'"):
        SearchModel(encoder, "some")
    with pytest.raises(InputError, match="expected index to be called before"):
        SearchModel(encoder).search(datasets.Dataset.from_list([{"id": "1", "text": "x"}]), top_k=1)


def test_no_queries_and_no_documents_give_nothing(encoder: Encoder) -> None:
    model = SearchModel(encoder, "lexical")
    model.index(datasets.Dataset.from_dict({"id": [], "text": []}))
    assert model.search(datasets.Dataset.from_list([{"id": "1", "text": "x"}]), top_k=2) == {"1": {}}
    assert model.search(datasets.Dataset.from_dict({"id": [], "text": []}), top_k=2) == {}


def test_a_model_may_be_named(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path / "mine")
    model = DenseModel(str(tmp_path / "mine"), "main", device="cpu")
    assert model.mteb_model_meta.name == "triptych/mine-dense"
