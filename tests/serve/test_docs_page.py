"""The page of routes needs nothing from elsewhere."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx

from serve.conftest import Running


class Links(HTMLParser):
    """What a page would load or lead to, and its words."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            (tag, value or "") for name, value in attrs if name in ("src", "href", "action", "data")
        ]
        assert tag not in ("script", "style", "iframe", "object", "embed")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_of_routes_loads_nothing_from_elsewhere(shared_server: Running) -> None:
    page = httpx.get(f"{shared_server.url}/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    links = Links()
    links.feed(page.text)
    assert {place for _, place in links.found} == {"style.css", "icon.svg", "openapi.json"}
    for _, place in links.found:
        assert httpx.get(urljoin(f"{shared_server.url}/docs", place)).status_code == 200
    assert "@import" not in httpx.get(f"{shared_server.url}/style.css").text
    assert httpx.get(f"{shared_server.url}/redoc").status_code == 404


def test_the_page_of_routes_has_every_route_and_field(shared_server: Running) -> None:
    described = httpx.get(f"{shared_server.url}/openapi.json").json()
    links = Links()
    links.feed(httpx.get(f"{shared_server.url}/docs").text)
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            assert f"{method.upper()} {path}" in links.words
            schema = (
                route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            )
            body = described["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], {})
            assert set(body.get("properties", ())) <= set(links.words)
