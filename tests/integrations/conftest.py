"""An index of the bundled model, with the documents of all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"  # before Haystack is imported

import pytest

from serve.conftest import serving
from triptych import Encoder, Index

DOCUMENTS = {
    "moka": ("A moka pot brews coffee by steam pressure.", {"lang": "en", "year": 2020}),
    "volcan": ("Un volcan est une ouverture dans la croûte terrestre.", {"lang": "fr", "year": 2021}),
    "tea": ("Green tea is brewed with water that is not quite boiling.", {"lang": "en", "year": 2023}),
    "erdbeben": ("Ein Erdbeben ist eine Erschütterung des Erdkörpers.", {"lang": "de", "year": 2024}),
}


@pytest.fixture(scope="session")
def small() -> Encoder:
    return Encoder.from_pretrained("small", device="cpu")


@pytest.fixture(scope="session")
def filled(small: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An open index of DOCUMENTS. Read only."""
    place = tmp_path_factory.mktemp("filled") / "my.index"
    with fill(place, small) as index:
        yield index


def fill(place: Path, encoder: Encoder) -> Index:
    index = Index.create(place, encoder, engine="exact")
    texts, metadata = zip(*DOCUMENTS.values(), strict=True)
    index.add(list(DOCUMENTS), texts, metadata)
    return index


@pytest.fixture(scope="session")
def address(small: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an index like `filled` on a server."""
    index = fill(tmp_path_factory.mktemp("served") / "my.index", small)
    with serving({"small": [small]}, {"my.index": index}) as running:
        yield f"{running.url}/my.index"


@pytest.fixture
def empty(small: Encoder, tmp_path: Path) -> Iterator[Index]:
    with Index.create(tmp_path / "empty.index", small, engine="exact") as index:
        yield index
