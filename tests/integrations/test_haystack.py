from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("haystack")

from haystack import Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.utils import Secret

from triptych import Encoder, Index
from triptych.errors import InputError
from triptych.integrations.haystack import TriptychTextRetriever

MODULES = [
    "triptych.integrations.haystack"
]  # Haystack loads no component of other packages unless it is named


def test_documents_are_the_hits_of_the_index(filled: Index) -> None:
    found = TriptychTextRetriever(filled, top_k=3).run("how do I make coffee?")["documents"]
    hits = filled.search("how do I make coffee?", 3)
    assert [(each.id, each.score, each.content, each.meta) for each in found] == [
        (hit.id, hit.score, hit.text, hit.metadata) for hit in hits
    ]


def test_it_runs_in_a_pipeline_and_can_be_awaited(filled: Index) -> None:
    pipeline = Pipeline()
    pipeline.add_component("retriever", TriptychTextRetriever(filled))
    pipeline.add_component("joiner", DocumentJoiner())
    pipeline.connect("retriever.documents", "joiner.documents")
    found = pipeline.run({"retriever": {"query": "croûte terrestre", "top_k": 1}})
    assert [each.id for each in found["joiner"]["documents"]] == ["volcan"]
    awaited = asyncio.run(TriptychTextRetriever(filled, top_k=1).run_async("croûte terrestre"))
    assert awaited["documents"][0].id == "volcan"


def test_a_saved_pipeline_opens_its_index_again(small: Encoder, tmp_path: Path) -> None:
    place = tmp_path / "my.index"
    with Index.create(place, small, engine="exact") as index:
        index.add(["a", "b"], ["tea", "coffee"])
    pipeline = Pipeline()
    component = TriptychTextRetriever(
        str(place), top_k=1, filters={"lang": "en"}, weights={"dense": 1}, api_key=Secret.from_env_var("KEY")
    )
    pipeline.add_component("retriever", component)
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=MODULES).get_component("retriever")
    assert again.to_dict() == component.to_dict()
    pipeline = Pipeline()
    pipeline.add_component("retriever", TriptychTextRetriever(str(place), top_k=1))
    found = Pipeline.loads(pipeline.dumps(), allowed_modules=MODULES).run({"retriever": {"query": "coffee"}})
    assert [each.id for each in found["retriever"]["documents"]] == ["b"]


def test_a_pipeline_with_an_open_index_cannot_be_saved(filled: Index) -> None:
    with pytest.raises(InputError, match="open index"):
        TriptychTextRetriever(filled).to_dict()


def test_filters_of_either_form_reach_the_index(filled: Index) -> None:
    def ids(filters: dict[str, object]) -> set[str]:
        return {each.id for each in TriptychTextRetriever(filled, filters=filters).run("tea")["documents"]}

    assert ids({"lang": "fr"}) == {"volcan"}
    assert ids({"field": "meta.lang", "operator": "==", "value": "fr"}) == {"volcan"}
    english = {"field": "meta.lang", "operator": "in", "value": ["en", "de"]}
    late = {"field": "meta.year", "operator": ">", "value": 2020}
    assert ids({"operator": "AND", "conditions": [english, late]}) == {"tea", "erdbeben"}
    assert ids({"operator": "OR", "conditions": [{**late, "value": 2023}, {**english, "value": ["fr"]}]}) == {
        "volcan",
        "erdbeben",
    }
    assert ids({"operator": "NOT", "conditions": [english, late]}) == {"moka", "volcan"}
    nested = {"operator": "AND", "conditions": [english, {"operator": "NOT", "conditions": [late]}]}
    assert ids(nested) == {"moka"}
    assert ids({**english, "operator": "not in"}) == {"volcan"}
    own = TriptychTextRetriever(filled, filters={"lang": "fr"})
    assert own.run("tea", filters={"lang": "de"})["documents"][0].id == "erdbeben"


def test_filters_that_an_index_does_not_know_are_refused(filled: Index) -> None:
    one = {"field": "meta.lang", "operator": "==", "value": "fr"}
    for filters, word in (
        ({"operator": "XOR", "conditions": [one]}, "XOR"),
        ({"operator": "AND", "conditions": [{"value": 1}]}, "conditions"),
        ({**one, "operator": "near"}, "near"),
    ):
        with pytest.raises(InputError, match=word):
            TriptychTextRetriever(filled).run("tea", filters=filters)
