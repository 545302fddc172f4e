"""A server with documents of all kinds, and Chromium in front of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.conftest import Running, serving
from triptych import Encoder, Index

HOSTILE = (
    '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script> & <b>bold</b>'
)
DOCUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "notes/coffee.md#moka": (
        "A moka pot brews coffee by pushing boiling water, under the pressure of steam, through ground coffee. "
        "Fill the lower chamber with water up to the valve, put the ground coffee into the basket, and heat it slowly. "
        "When the pot begins to gurgle, take it off the heat. Coffee that stays on the fire burns and turns bitter.",
        {
            "title": "Moka pot",
            "path": "notes/coffee.md",
            "heading": ["Coffee", "Brewing"],
            "lang": "en",
            "year": 2021,
        },
    ),
    "manual.pdf#3": (
        "Never open the espresso machine while there is pressure in the boiler. Let the coffee maker cool down first.",
        {
            "title": "Espresso machine: manual",
            "path": "manual.pdf",
            "page": 3,
            "passage": 2,
            "passages": 5,
            "lang": "en",
            "year": 2019,
        },
    ),
    "kaffee": (
        "Kaffee wird mit heißem Wasser aus gemahlenen Bohnen aufgebrüht. In Italien nimmt man dafür gern eine Moka.",
        {"title": "Kaffee kochen", "path": "de/kaffee.html", "lang": "de", "year": 2023},
    ),
    "qahwa": (
        "القهوة مشروب يُعدّ من حبوب البن المحمصة والمطحونة، وتُشرب ساخنة في الصباح مع التمر.",
        {"title": "القهوة العربية", "path": "ar/coffee.txt", "lang": "ar", "year": 2020},
    ),
    "tea": (
        "Green tea is brewed with water that is not quite boiling, for two or three minutes.",
        {"title": "Green tea", "path": "notes/tea.md", "lang": "en", "year": 2022},
    ),
    "volcan": (
        "Un volcan est une ouverture dans la croûte terrestre par laquelle sortent la lave et les gaz.",
        {"title": "Volcan", "path": "fr/volcan.txt", "lang": "fr", "year": 2018},
    ),
    "hostile": (f"Coffee {HOSTILE}", {"title": f"Coffee {HOSTILE}", "path": HOSTILE, "note": HOSTILE}),
    "emoji": ("😀😀 Coffee for two 😀", {"lang": "en"}),
}


@pytest.fixture(scope="session")
def small() -> Encoder:
    return Encoder.from_pretrained("small", device="cpu")


def make(place: Path, encoder: Encoder, documents: dict[str, tuple[str, dict[str, Any]]]) -> Index:
    index = Index.create(place, encoder, engine="exact")
    texts, metadata = zip(*documents.values(), strict=True)
    index.add(list(documents), texts, metadata)
    return index


@pytest.fixture(scope="module")
def site(small: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with two indexes: one of DOCUMENTS, one of many documents."""
    folder = tmp_path_factory.mktemp("site")
    many = {f"n{i:03}": (f"Note {i} about coffee, tea and water {i * 7}.", {"n": i}) for i in range(120)}
    indexes = {
        "kitchen": make(folder / "kitchen", small, DOCUMENTS),
        "many": make(folder / "many", small, many),
    }
    with serving({"small": [small]}, indexes) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, headless. Only a module long: asyncio cannot run beside it."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()
