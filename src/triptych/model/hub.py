"""From a model's name to its folder, and from a folder to the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from triptych.errors import ModelError
from triptych.types import check_path, check_str

BUNDLED = ("small",)
# What a checkpoint of any layout consists of; a repository may hold much else (ONNX files, pictures).
_PATTERNS = ["*.json", "*.safetensors", "*.pt", "*.bin", "*.model", "*.txt", "README.md"]
_SKIPPED = ["onnx/*", "openvino/*", "*.onnx*"]


def resolve(name: str | Path, *, revision: str | None = None, cache: str | Path | None = None) -> Path:
    """The folder of a model; downloads it if `name` is neither bundled nor a folder.

    Args:
        name: "small", a folder, or a Hub name.
        revision: Branch, tag or commit on the Hub.
        cache: Folder for downloads; None: the Hub's own.

    Raises:
        InputError: For an argument of a wrong type.
        ModelError: If there is no such model, or no connection to the Hub.
    """
    folder = check_path(name, "model name")
    if revision is not None:
        check_str(revision, "revision")
    if cache is not None:
        check_path(cache, "cache")
    if str(name) in BUNDLED:
        return Path(str(files("triptych"))) / "models" / str(name)
    if folder.is_dir():
        return folder.absolute()
    if folder.is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") > 1:
        raise ModelError(f"{name}: there is no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                str(name),
                revision=revision,
                cache_dir=cache,
                allow_patterns=_PATTERNS,
                ignore_patterns=_SKIPPED,
            )
        )
    except (LocalEntryNotFoundError, ConnectionError) as error:
        raise ModelError(
            f"{name}: not in the cache, and the Hub cannot be reached. Connect once, or copy the model's folder "
            f"to this machine and give its path; the bundled models ({', '.join(BUNDLED)}) need no connection"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise ModelError(
            f"{name}: neither a bundled model ({', '.join(BUNDLED)}), nor a folder, nor to be had from the Hub: {error}"
        ) from error


def push(name: str, write: Callable[[Path], None], *, private: bool = False, token: str | None = None) -> str:
    """Uploads what `write` puts into a folder as the Hub repository `name`; returns its address.

    Raises:
        ModelError: If the Hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(token=token)
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a triptych model")
    except (HfHubHTTPError, HFValidationError, ConnectionError) as error:
        raise ModelError(f"{name}: the upload failed: {error}") from error
    return str(address)
