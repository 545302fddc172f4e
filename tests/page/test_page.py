"""The search page in Chromium, with a server on loopback: `pytest -m browser`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from page.conftest import DOCUMENTS, HOSTILE, make
from serve.conftest import Running, serving
from triptych import Encoder

pytestmark = [pytest.mark.browser, pytest.mark.slow]
QUERY = "how do I make coffee?"


@pytest.fixture
def visit(browser: Any, site: Running) -> Iterator[Callable[..., Any]]:
    """Opens the page; a message on the console or a request to elsewhere fails the test."""
    contexts: list[Any] = []
    problems: list[str] = []

    def open_page(query: str = "", url: str | None = None, hits: bool = True, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: check(request.url, url or site.url))
        page.goto(f"{url or site.url}/")
        page.wait_for_selector("#index option", state="attached")
        if query:
            page.fill("#query", query)
            page.press("#query", "Enter")
            if hits:
                page.wait_for_selector(".hit")
                settle(page)
        return page

    def check(address: str, home: str) -> None:
        if not address.startswith(home):
            problems.append(f"a request to {address}")

    yield open_page
    for context in contexts:
        context.close()
    assert not problems


def ids(page: Any) -> list[str]:
    return page.eval_on_selector_all(".hit", "all => all.map(each => each.dataset.id)")


def searches(page: Any) -> list[dict[str, Any]]:
    """A list to which the body of each search is added from now on."""
    asked: list[dict[str, Any]] = []
    page.on("request", lambda r: asked.append(r.post_data_json) if r.url.endswith("/search") else None)
    return asked


def slide(page: Any, head: str, value: float) -> None:
    page.eval_on_selector(
        f"#weight-{head}",
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        value,
    )


def settle(page: Any) -> None:
    page.wait_for_timeout(400)
    page.wait_for_selector("#results:not([aria-busy]):not(:has(.hit[data-waiting]))", state="attached")


def ranking(site: Running, index: str, query: str, k: int, **options: Any) -> list[str]:
    body = {"query": query, "k": k, **options}
    found = httpx.post(f"{site.url}/v1/indexes/{index}/search", json=body, timeout=60).json()
    return [hit["id"] for hit in found["hits"]]


def test_hits_stand_in_the_servers_order_with_their_scores(visit: Any, site: Running) -> None:
    page = visit(QUERY)
    assert ids(page) == ranking(site, "kitchen", QUERY, 10)
    assert re.match(r"8 hits, \d+ ms", page.text_content("#status"))
    found = httpx.post(f"{site.url}/v1/indexes/kitchen/search", json={"query": QUERY}).json()["hits"][0]
    first = page.locator(".hit").first
    assert first.locator(".score").text_content() == f"{found['score']:.3f}"
    shown = [first.locator(f".{head} output").text_content() for head in ("dense", "lexical", "multi")]
    assert shown == [f"{score:.3f}" for score in found["scores"].values()]
    total = sum(
        page.eval_on_selector_all(".hit:first-child .bar", "all => all.map(b => parseFloat(b.style.width))")
    )
    assert total == pytest.approx(100, abs=0.1), "the bars of the best hit add up to its score"


def test_sliders_rank_again_without_a_request_where_all_candidates_are_there(
    visit: Any, site: Running
) -> None:
    page = visit(QUERY)
    asked = searches(page)
    for weights in ((0, 1, 0), (0, 0, 1), (1, 0, 0), (0.2, 2, 0.05)):
        for head, weight in zip(("dense", "lexical", "multi"), weights, strict=True):
            slide(page, head, weight)
        settle(page)
        expected = dict(zip(("dense", "lexical", "multi"), weights, strict=True))
        assert ids(page) == ranking(site, "kitchen", QUERY, 10, weights=expected)
    assert asked == []
    page.click("#reset")
    assert ids(page) == ranking(site, "kitchen", QUERY, 10)


def test_the_server_is_asked_where_other_documents_may_come_first(visit: Any, site: Running) -> None:
    page = visit()
    page.select_option("#index", "many")
    page.fill("#query", "Note 7 about water 49")
    page.press("#query", "Enter")
    page.wait_for_selector(".hit")
    asked = searches(page)
    before = ids(page)
    slide(page, "dense", 0)
    slide(page, "multi", 0)
    now = ids(page)
    assert asked == [], "what is there is ranked before the server is asked"
    assert now != before
    settle(page)
    assert [each["weights"] for each in asked] == [{"dense": 0, "lexical": 0.3, "multi": 0}]
    assert ids(page) == ranking(site, "many", "Note 7 about water 49", 10, weights={"lexical": 0.3})


def test_more_shows_more_and_at_the_end_no_button(visit: Any, site: Running) -> None:
    page = visit()
    page.select_option("#index", "many")
    page.fill("#query", "coffee")
    page.press("#query", "Enter")
    page.wait_for_selector(".hit")
    expected = ranking(site, "many", "coffee", 120)
    for shown in range(20, 121, 10):
        page.click("#more")
        page.wait_for_function("n => document.querySelectorAll('.hit').length === n", arg=shown)
        settle(page)
        assert ids(page) == expected[:shown]
    assert page.is_hidden("#more")


def test_filters_reach_the_server_and_can_be_removed(visit: Any) -> None:
    page = visit(QUERY)
    asked = searches(page)

    def add(field: str, operator: str, value: str) -> None:
        page.fill("#field", field)
        page.select_option("#operator", operator)
        page.fill("#value", value)
        page.press("#value", "Enter")
        settle(page)

    add("lang", "", "en")
    add("lang", "", "de")
    add("year", "gte", "2021")
    add("year", "lt", "2023")
    assert asked[-1]["filter"] == {"lang": ["en", "de"], "year": {"gte": 2021, "lt": 2023}}
    assert set(ids(page)) == {"notes/coffee.md#moka", "tea"}
    page.click("#filters li:nth-child(2) button")
    settle(page)
    assert asked[-1]["filter"]["lang"] == ["en"]
    options = page.eval_on_selector_all("#fields option", "all => all.map(each => each.value)")
    assert {"lang", "year", "title", "path"} <= set(options)


def test_a_misspelt_filter_shows_what_the_server_says(browser: Any, site: Running) -> None:
    page = browser.new_page()  # the console has the status 422
    page.goto(f'{site.url}/?q=coffee&f=[{{"field":"lnag","operator":"","value":"en"}}]')
    page.wait_for_selector("#status.error")
    assert "did you mean 'lang'" in page.text_content("#status")
    page.close()


def test_words_in_common_have_their_weights(visit: Any, site: Running) -> None:
    page = visit(QUERY)
    body = {"query": QUERY, "explain": True}
    hit = httpx.post(f"{site.url}/v1/indexes/kitchen/search", json=body).json()["hits"][0]
    words = hit["explanation"]["words"]
    shown = page.eval_on_selector_all(
        ".hit:first-child .words li", "all => all.map(each => each.textContent)"
    )
    assert shown == [
        f"{w['token']} {w['query_weight']:.2f} × {w['document_weight']:.2f} = {w['score']:.3f}" for w in words
    ]


@pytest.mark.parametrize("how", ["hover", "focus"])
def test_a_token_of_the_query_shows_which_token_of_the_text_it_met(
    visit: Any, site: Running, how: str
) -> None:
    page = visit(QUERY)
    body = {"query": QUERY, "explain": True}
    hits = httpx.post(f"{site.url}/v1/indexes/kitchen/search", json=body).json()["hits"]
    for number, hit in enumerate(hits):
        tokens = hit["explanation"]["tokens"]
        item = page.locator(".hit").nth(number)
        for i, token in enumerate(tokens):
            getattr(item.locator(".token").nth(i), how)()
            met = item.locator(".met").text_content()
            assert met == f"{token['query_token']} → {token['document_token']} {token['score']:.3f}"
            if token["document_span"]:
                start, end = token["document_span"]
                assert (
                    item.locator("mark.lit").text_content()
                    == hit["text"][start:end]
                    == token["document_token"]
                )
    page.hover("h1")
    page.focus("#query")
    assert page.locator("mark.lit").count() == 0


def test_only_what_is_shown_is_explained(visit: Any) -> None:
    page = visit()
    page.select_option("#index", "many")
    asked: list[list[str]] = []
    page.on(
        "request", lambda r: asked.append(r.post_data_json["ids"]) if r.url.endswith("/explain") else None
    )
    page.fill("#query", "Note 7 about water 49")
    page.press("#query", "Enter")
    page.wait_for_selector(".hit")
    settle(page)
    assert asked == [ids(page)]
    slide(page, "dense", 0)
    settle(page)
    slide(page, "dense", 1)
    settle(page)
    names = [name for each in asked for name in each]
    assert len(names) == len(set(names)), "none is explained twice"
    assert set(ids(page)) <= set(names)


def test_the_marked_text_is_the_text(visit: Any) -> None:
    page = visit(QUERY)
    for name, (text, _) in DOCUMENTS.items():
        assert page.locator(f'[data-id="{name}"] .text').text_content() == text


def test_nothing_of_a_document_is_markup(visit: Any) -> None:
    page = visit("coffee bold")
    item = page.locator('[data-id="hostile"]')
    assert item.locator("h2").text_content() == f"Coffee {HOSTILE}"
    assert item.locator('[data-place="path"]').text_content() == HOSTILE
    assert item.locator(".metadata dd").last.text_content() == HOSTILE
    assert item.locator("img, script, b").count() == 0
    assert page.title() == "Triptych search"


def test_the_policy_of_the_page_lets_nothing_else_run(site: Running) -> None:
    for path in ("/", "/app.js", "/style.css"):
        headers = httpx.get(site.url + path).headers
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    for path in ("/../app.py", "/..%2fapp.py", "/%2e%2e/app.py", "/.."):
        assert "create_app" not in httpx.get(site.url + path).text


def test_no_script_of_the_page_makes_markup_of_text() -> None:
    folder = Path(__file__).parents[2] / "src" / "triptych" / "serve" / "page"
    scripts = "".join(path.read_text("utf-8") for path in folder.glob("*.js"))
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|DOMParser", scripts)
    names = {path.name for path in folder.iterdir()}
    outside = re.findall(
        r"https?://(?!www\.w3\.org/2000/svg)[^\s\"'<]+",
        "".join((folder / name).read_text("utf-8") for name in names),
    )
    assert not outside


def test_titles_and_places_of_files_are_shown(visit: Any) -> None:
    page = visit(QUERY)
    item = page.locator('[data-id="manual.pdf#3"]')
    assert item.locator("h2").text_content() == "Espresso machine: manual"
    assert item.locator(".places li").all_text_contents() == ["manual.pdf", "page 3", "passage 2 of 5", "en"]
    headings = page.locator('[data-id="notes/coffee.md#moka"] [data-place="heading"]')
    assert headings.text_content() == "Coffee › Brewing"


def test_arabic_runs_from_right_to_left_beside_english(visit: Any) -> None:
    page = visit("القهوة في الصباح")
    direction = "each => getComputedStyle(each).direction"
    assert ids(page)[0] == "qahwa"
    assert page.eval_on_selector('[data-id="qahwa"] .text', direction) == "rtl"
    assert page.eval_on_selector('[data-id="qahwa"] h2', direction) == "rtl"
    assert page.eval_on_selector('[data-id="tea"] .text', direction) == "ltr"
    assert page.eval_on_selector("#query", direction) == "rtl"


def test_everything_can_be_done_by_keys(visit: Any) -> None:
    page = visit(QUERY)
    focused = "document.activeElement.dataset.id ?? document.activeElement.id"
    page.focus("#theme")
    page.keyboard.press("/")
    assert page.evaluate(focused) == "query"
    order = ids(page)
    for name in order[:3]:
        page.keyboard.press("ArrowDown")
        assert page.evaluate(focused) == name
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == order[0] == "notes/coffee.md#moka"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") in ("quiet open", "token")
    page.keyboard.press("/")
    page.keyboard.type("green tea")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.hit').dataset.id === 'tea'")
    page.focus("#weight-dense")
    page.keyboard.press("End")
    assert page.text_content(".weight.dense output") == "5"


def test_a_long_text_opens_and_closes(browser: Any, small: Encoder, tmp_path: Path, visit: Any) -> None:
    index = make(tmp_path / "long", small, {"long": ("Coffee is good. " * 80, {})})
    with serving({"small": [small]}, {"long": index}) as running:
        page = visit("coffee", url=running.url)
        height = page.locator(".text").bounding_box()["height"]
        page.focus(".hit")
        page.keyboard.press("Enter")
        assert page.locator(".text").bounding_box()["height"] > 2 * height
        assert page.get_attribute(".open", "aria-expanded") == "true"
        slide(page, "lexical", 1)
        assert page.get_attribute(".open", "aria-expanded") == "true", "what was open stays so"
        page.click(".open")
        assert page.locator(".text").bounding_box()["height"] == height


def test_the_address_holds_the_search(visit: Any, site: Running) -> None:
    page = visit(QUERY)
    slide(page, "dense", 0.5)
    page.fill("#field", "lang")
    page.fill("#value", "en")
    page.press("#value", "Enter")
    settle(page)
    address, found = page.url, ids(page)
    assert parse_qs(urlsplit(address).query)["w"] == ["0.5,0.3,3"]
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector(".hit")
    assert (page.input_value("#query"), ids(page)) == (QUERY, found)
    assert page.input_value("#weight-dense") == "0.5"
    assert page.locator("#filters li").count() == 1


def test_wrong_addresses_are_read_as_far_as_they_go(visit: Any, site: Running) -> None:
    page = visit()
    page.goto(f"{site.url}/?q=coffee&w=9,x&f=%7Bno&index=none")
    page.wait_for_selector(".hit")
    assert page.input_value("#weight-dense") == "1"
    assert page.locator("#filters li").count() == 0


def test_a_server_with_keys_asks_for_one(browser: Any, small: Encoder, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("read opensesame\n")
    index = make(tmp_path / "kitchen", small, DOCUMENTS)
    with serving({"small": [small]}, {"kitchen": index}, keys=tmp_path / "keys") as running:
        page = browser.new_page()
        page.goto(f"{running.url}/?q=coffee")
        for key in ("wrong", "opensesame"):
            page.wait_for_selector("#login[open]")
            page.fill("#key", key)
            page.press("#key", "Enter")
        page.wait_for_selector(".hit")
        page.reload()
        page.wait_for_selector(".hit")
        assert "opensesame" not in page.url
        page.close()


def test_a_server_without_indexes_says_so(visit: Any, small: Encoder, browser: Any) -> None:
    with serving({"small": [small]}, {}) as running:
        page = browser.new_page()
        page.goto(running.url)
        page.wait_for_selector("#status.error")
        assert "no index" in page.text_content("#status")
        page.close()


def test_an_empty_query_and_weights_of_0_ask_for_nothing(visit: Any) -> None:
    page = visit(QUERY)
    asked = searches(page)
    for head in ("dense", "lexical", "multi"):
        slide(page, head, 0)
    page.press("#query", "Enter")
    assert "nothing can be ranked" in page.text_content("#status")
    page.fill("#query", "  ")
    page.press("#query", "Enter")
    page.wait_for_function("() => !document.querySelector('.hit')")
    settle(page)
    assert [each for each in asked if not any(each["weights"].values())] == []
    assert asked == [] or asked[-1]["query"].strip()


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_shows_it_without_scrolling_sideways(visit: Any, width: int) -> None:
    page = visit(QUERY, viewport={"width": width, "height": 700}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.is_hidden("#weight-dense")
    page.click("#settings summary")
    assert page.is_visible("#weight-dense")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    size = page.locator(".token").first.bounding_box()
    assert size["height"] >= 36, "large enough for a finger"


def test_colors_follow_the_system_until_one_is_chosen(visit: Any) -> None:
    page = visit(QUERY, color_scheme="dark")
    back = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(back)
    page.click("#theme")
    assert page.evaluate(back) != dark
    page.reload()
    page.wait_for_selector(".hit")
    assert page.evaluate(back) != dark
    page.click("#theme")
    assert page.evaluate(back) == dark
    page.click("#theme")
    assert page.evaluate(back) == dark
    page.emulate_media(color_scheme="light")
    assert page.evaluate(back) != dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing_that_is_hard_to_use(visit: Any, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(QUERY, color_scheme=scheme, viewport={"width": width, "height": 900})
    if width < 800:
        page.click("#settings summary")
    page.fill("#field", "lang")
    page.fill("#value", "en")
    page.press("#value", "Enter")
    settle(page)
    page.locator(".metadata summary").first.click()
    page.locator(".token").nth(2).focus()
    result = axe.Axe().run(page)
    assert result.violations_count == 0, result.generate_report()


def test_the_bound_is_what_a_search_for_the_best_finds(visit: Any) -> None:
    """`bound` beside trying all scores on a grid."""
    page = visit()
    highest = """async ([old, next, limit]) => {
        const { bound } = await import('./rank.js');
        let best = -Infinity;
        for (let d = -1; d <= 1.001; d += 0.1) for (let m = -1; m <= 1.001; m += 0.1)
            for (let l = 0; l <= 8.001; l += 0.1)
                if (old.dense * d + old.lexical * l + old.multi * m <= limit + 1e-9)
                    best = Math.max(best, next.dense * d + next.lexical * l + next.multi * m);
        return [bound(old, next, limit), best];
    }"""
    heads = ("dense", "lexical", "multi")
    for old, new, limit in (
        ((1, 0.5, 1), (0.5, 0.5, 2), 1.5),
        ((1, 1, 1), (2, 1, 0), 0.3),
        ((1, 0.5, 0), (1, 0.5, 1), 1.0),
        ((0.5, 1, 2), (0, 1, 0), 1.0),
    ):
        weights = [dict(zip(heads, each, strict=True)) for each in (old, new)]
        bound, best = page.evaluate(highest, [*weights, limit])
        assert bound == pytest.approx(best, abs=0.11)
        assert bound >= best - 1e-6
    before, after = ({"dense": 1, "lexical": lexical, "multi": 1} for lexical in (0, 1))
    call = "async ([old, next]) => (await import('./rank.js')).bound(old, next, 1)"
    unbounded = page.evaluate(call, [before, after])
    assert unbounded == float("inf")
