"""Documents of our own, and a client's settings that wait for nobody."""

from pathlib import Path

import pytest

from triptych.records import Document
from triptych.tools.synthesize.asking import Patience
from triptych.tools.synthesize.client import Endpoint

from .server import Model

TOWNS = ["Arvika", "Bled", "Cieszyn", "Dinant", "Erice", "Faro", "Gouda", "Hallstatt"]
TRADES = ["weavers", "coopers", "millers", "glaziers", "tanners", "potters", "chandlers", "saddlers"]


def document(i: int, **metadata: str) -> Document:
    """A long document about one town, with three passages."""
    town, trade = TOWNS[i % 8], TRADES[i // 8 % 8]
    parts = [
        f"The {trade} of {town} kept their guild hall beside the river from the year {1300 + i} onwards, and they "
        f"paid the bishop one barrel of herring every winter for the right to use the bridge in {town}.",
        f"In {1500 + i} a fire that began in a bakery destroyed forty houses of {town}, among them the workshop in "
        f"which the {trade} had stored their tools, their ledgers and the silver cup of the guild.",
        f"Today a museum in {town} shows what remains of the {trade}: three ledgers, a loom without its shuttle, "
        f"and a letter of {1600 + i} in which the mayor complains about the noise of the {trade} at night.",
    ]
    return Document(f"d{i}", "\n\n".join(parts), f"The {trade} of {town}", {"lang": "en", **metadata})


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def documents() -> list[Document]:
    return [document(i) for i in range(12)]


@pytest.fixture
def hasty() -> Patience:
    return Patience(attempts=4, base=0.002, cap=0.01, concurrency=1)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


def endpoint(model: Model, **options: object) -> Endpoint:
    return Endpoint(model.url, "tiny", **{"timeout": 5.0, "max_tokens": 50, **options})  # type: ignore[arg-type]


def question_about(prompt: str) -> str:
    """A good question about one of the passages above, as a model would make it."""
    town = next(town for town in TOWNS if town in prompt)
    trade = next(trade for trade in TRADES if trade in prompt)
    if "herring" in prompt:
        return f"Which fish did the {trade} from {town} owe to their bishop?"
    if "bakery" in prompt:
        return f"When did flames ruin the tools of the {trade} in {town}?"
    return f"Which old objects of the {trade} can visitors see in {town}?"
