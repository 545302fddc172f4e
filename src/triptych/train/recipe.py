"""Recipes: YAML files of settings.

The order of what counts: defaults < the YAML file < ``--set key=value``. An unknown key is an error that names the
nearest known one. The values that result are written beside every checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from triptych.errors import DataError, InputError
from triptych.train.settings import Recipe, Settings, hint

_Value = TypeVar("_Value")


def dump(recipe: Recipe) -> str:
    """A recipe with all its values as YAML; `read` gives it back."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read(path: Path | None, changes: Sequence[str] = (), base: Mapping[str, Any] | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        path: YAML file; None: none.
        changes: ``key=value`` with dots between the parts of the key; the value is YAML.
        base: Values that count less than the file's.

    Raises:
        DataError: If the file cannot be read as YAML (with the line).
        InputError: For an unknown key or a value that does not fit.
    """
    values = settings_of(path, changes, base)
    where = (
        " and ".join([*([str(path)] if path is not None else []), *(["--set"] if changes else [])])
        or "recipe"
    )
    return validated(Recipe, values, where)


def settings_of(
    path: Path | None, changes: Sequence[str] = (), base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The values of a file and of changes to it, not yet checked; arguments and errors as for `read`."""
    values = merged(dict(base or {}), read_mapping(path) if path is not None else {})
    for change in changes:
        values = merged(values, _change(change))
    return values


def validated(kind: type[_Value], values: Mapping[str, Any], where: str) -> _Value:
    """Builds a settings class; all that is wrong is said at once.

    Raises:
        InputError: See above.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        problems = [_problem(dict(each), kind) for each in error.errors()]
        raise InputError(f"{where}: {'; '.join(problems)}") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        DataError: If it cannot be read as that (with the line).
    """
    try:
        read_values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error}", path) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else int(mark.line) + 1
        raise DataError(f"broken YAML: {getattr(error, 'problem', error)}", path, line) from None
    if read_values is None:
        return {}
    if not isinstance(read_values, dict):
        raise DataError(f"got {type(read_values).__name__}; expected keys and values", path)
    return cast("dict[str, Any]", read_values)


def _change(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise InputError(f"--set: got {text!r}; expected key=value, such as optimisation.lr=1e-5")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {key}: got {value!r}, which is not YAML: {error}") from None
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return cast("dict[str, Any]", nested)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of both; mappings are merged, anything else of `above` replaces that of `below`."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merged(cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", value))
        result[key] = value
    return result


def _problem(error: Mapping[str, Any], kind: Any) -> str:
    place = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        parent = _walk(kind, place[:-1])
        return f"unknown key {'.'.join(place)!r}; {hint(place[-1], list(parent))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    text = f"{'.'.join(place) or 'recipe'}: {message[:1].lower()}{message[1:]}"
    return text if error["type"] == "value_error" else f"{text}, got {error['input']!r:.80}"


def _walk(kind: Any, path: Sequence[str]) -> Mapping[str, Any]:
    """The fields of the settings class that a path of keys leads to."""
    names: Mapping[str, Any] = kind.model_fields
    for part in path:
        below = _settings_in(names[part].annotation) if part in names else None
        names = names if below is None else below.model_fields
    return names


def _settings_in(annotation: Any) -> type[Settings] | None:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    inner = [_settings_in(each) for each in getattr(annotation, "__args__", ())]
    return next((each for each in inner if each is not None), None)
