"""Names of models: bundled, folders, the Hub; and uploads."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import HFValidationError

import twin
from checkpoints import TEXTS
from triptych import Encoder
from triptych.errors import ModelError
from triptych.model import hub


def test_without_a_connection_a_hub_name_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"some/model: not in the cache.*copy the model's folder.*small"):
        Encoder.from_pretrained("some/model", cache=tmp_path)


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "a/b/c", "~/model"])
def test_a_path_that_is_no_folder_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        hub.resolve(name)


def test_a_name_that_the_hub_cannot_have_is_an_error() -> None:
    with pytest.raises(ModelError, match="neither a bundled model"):
        hub.resolve("no such name!")


def test_a_cached_download_is_found_with_its_revision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options["revision"], options["cache_dir"]))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    encoder = Encoder.from_pretrained("some/model", revision="v1", cache="here", device="cpu")
    assert asked == [("some/model", "v1", "here")]
    assert encoder.source == "some/model"


class FakeApi:
    """Stands for the Hub: keeps what is uploaded."""

    uploads: list[dict[str, Any]]
    folder: Path

    def __init__(self, token: str | None = None) -> None:
        FakeApi.uploads.append({"token": token})

    def create_repo(self, name: str, **options: Any) -> str:
        if name == "bad name":
            raise HFValidationError("a name has no blanks")
        FakeApi.uploads[-1] |= {"name": name, **options}
        return f"https://hub/{name}"

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        FakeApi.uploads[-1] |= {"repo_id": repo_id, "commit_message": commit_message}
        for path in Path(folder_path).iterdir():
            (FakeApi.folder / path.name).write_bytes(path.read_bytes())


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeApi]:
    FakeApi.uploads, FakeApi.folder = [], tmp_path
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    return FakeApi


@pytest.mark.parametrize("layout", ["triptych", "published"])
def test_an_upload_is_a_whole_checkpoint(own_encoder: Encoder, api: type[FakeApi], layout: str) -> None:
    assert (
        own_encoder.push_to_hub("me/model", private=True, token="secret", layout=layout)
        == "https://hub/me/model"
    )
    upload = api.uploads[0]
    assert (upload["token"], upload["name"], upload["repo_id"], upload["private"]) == (
        "secret",
        "me/model",
        "me/model",
        True,
    )
    again = Encoder.from_pretrained(api.folder, device="cpu", dtype="float32")
    assert again.fingerprint == own_encoder.fingerprint
    twin.assert_same(again.encode(TEXTS), own_encoder.encode(TEXTS))


def test_an_upload_has_the_card_and_the_small_tables(
    folder: Path, api: type[FakeApi], tmp_path: Path
) -> None:
    words = "embeddings.word_embeddings.weight"
    Encoder.from_pretrained(folder, device="cpu").save_pretrained(tmp_path / "model", bits={words: 4})
    (tmp_path / "model" / "README.md").write_text("# A card\n", encoding="utf-8")
    api.folder = tmp_path / "hub"
    api.folder.mkdir()
    Encoder.from_pretrained(tmp_path / "model", device="cpu").push_to_hub("me/model")
    assert (api.folder / "README.md").read_text(encoding="utf-8") == "# A card\n"
    sizes = [(place / "model.safetensors").stat().st_size for place in (tmp_path / "model", api.folder)]
    assert sizes[0] == sizes[1]


def test_an_upload_that_the_hub_refuses_is_an_error(own_encoder: Encoder, api: type[FakeApi]) -> None:
    with pytest.raises(ModelError, match="bad name: the upload failed: a name has no blanks"):
        own_encoder.push_to_hub("bad name")
