"""The page that describes the routes for people: made of the OpenAPI description, with nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Triptych: routes</title><link rel="icon" href="icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="style.css"></head><body class="routes"><header><h1>Routes</h1></header><main>
<p>For machines: <a href="openapi.json">openapi.json</a>. Requests with keys have
<code>Authorization: Bearer KEY</code>.</p>
"""


def docs_page(described: dict[str, Any]) -> str:
    """HTML with each route, its fields and an example of its body.

    Args:
        described: An OpenAPI description.
    """
    groups: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            html = "".join(_route(path, method.upper(), route, described))
            groups.setdefault(route.get("tags", ["other"])[0], []).append(html)
    parts = [f"<h2>{escape(tag)}</h2>{''.join(routes)}" for tag, routes in groups.items()]
    return f"{_HEAD}{''.join(parts)}</main></body></html>"


def _route(path: str, method: str, route: dict[str, Any], described: dict[str, Any]) -> Iterator[str]:
    yield f"<details><summary><code>{method} {escape(path)}</code> {escape(route.get('summary', ''))}</summary>"
    yield f"<p>{escape(route.get('description', ''))}</p>"
    fields = [
        (each["name"], each["schema"], each.get("required", False)) for each in route.get("parameters", [])
    ]
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        schema = _resolve(body, described)
        needed = schema.get("required", [])
        properties: dict[str, Any] = schema.get("properties", {})
        fields += [(name, each, name in needed) for name, each in properties.items()]
        example = {name: each["examples"][0] for name, each in properties.items() if "examples" in each}
        if example:
            sent = escape(json.dumps(example, ensure_ascii=False))
            call = f"curl -X {method} HOST{escape(path)} -H 'content-type: application/json'"
            yield f"<pre>{call} -d '{sent}'</pre>"
    if fields:
        yield "<table><tr><th>Field</th><th>Type</th><th>Default</th><th></th></tr>"
        for name, each, is_needed in fields:
            default = "needed" if is_needed else json.dumps(each.get("default"), ensure_ascii=False)
            cells = (name, _type(each, described), default, each.get("description", ""))
            yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        yield "</table>"
    yield "</details>"


def _resolve(schema: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return described["components"]["schemas"][name] if name else schema


def _type(schema: dict[str, Any], described: dict[str, Any]) -> str:
    if options := schema.get("anyOf"):
        return " or ".join(_type(each, described) for each in options)
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(each) for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), described)}"
    if "$ref" in schema:
        return f"{{{', '.join(_resolve(schema, described).get('properties', {}))}}}"
    return schema.get("type", "anything")
