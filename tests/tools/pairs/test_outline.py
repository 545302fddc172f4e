"""Markdown, HTML and plain text become blocks; what stands around a page's text does not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.tools.pairs.base import Block, Link
from triptych.tools.pairs.outline import Outline, html_outline, markdown_outline, text_outline

PAGE = """<!DOCTYPE html><html lang="de"><head><title> Die
 Kanne </title><meta name="description" content="Alles über  Kannen">
<meta name="keywords" content="Kanne, Kaffee,,"><style>p {}</style></head><body>
<nav><a href="index.html">Start</a><p>Menü</p></nav>
<h1>Die <em>Kanne</em></h1><p>Sie kocht <a href="kaffee.html#sorten">guten Kaffee</a>.</p>
<ul><li><p>eins</p></li><li>zwei<br>drei</li></ul>
<dl><dt>Was ist das?</dt><dd>Eine Kanne.</dd></dl>
<details><summary>Warum?</summary>Darum.</details>
<table><tr><th>a</th><td>b</td></tr><tr><td>1</td><td>2</td></tr></table>
<pre>x =  1
y</pre><div hidden>nie</div><script>nie</script><footer>Impressum</footer></body></html>"""


def kinds_and_texts(outline: Outline) -> list[tuple[str, str]]:
    assert [block.number for block in outline.blocks] == list(range(len(outline.blocks)))
    return [(block.kind, block.text) for block in outline.blocks]


def test_html_becomes_blocks_with_what_its_head_says() -> None:
    outline = html_outline(PAGE)
    assert kinds_and_texts(outline) == [
        ("h1", "Die Kanne"),
        ("", "Sie kocht guten Kaffee."),
        ("li", "eins"),
        ("li", "zwei\ndrei"),
        ("h7", "Was ist das?"),
        ("", "Eine Kanne."),
        ("h7", "Warum?"),
        ("", "Darum."),
        ("tr", "a b"),
        ("tr", "1 2"),
        ("pre", "x =  1\ny"),
    ]
    assert outline.title == "Die Kanne"
    assert (outline.lang, outline.description, outline.keywords) == (
        "de",
        "Alles über Kannen",
        ("Kanne", "Kaffee"),
    )
    assert outline.links == (Link("guten Kaffee", "kaffee.html#sorten"),)


def test_declared_questions_come_last_and_broken_declarations_are_passed_over() -> None:
    question = {"@type": "Question", "name": "Why <b>so</b>?", "acceptedAnswer": {"text": "<p>Because.</p>"}}
    script = '<script type="application/ld+json">{}</script>'
    page = script.format(json.dumps({"@graph": [{"@type": "FAQPage", "mainEntity": [question]}]}))
    page += script.format("{broken") + script.format("[" * 50 + "]" * 50) + "<p>text</p>"
    assert kinds_and_texts(html_outline(page)) == [("", "text"), ("h7", "Why so?"), ("", "Because.")]


@pytest.mark.parametrize(
    ("page", "blocks"),
    [
        ("", []),
        ("<p>", []),
        ("just text", [("", "just text")]),
        ("<h2>open <p>never closed <li>item", [("h2", "open"), ("h2", "never closed"), ("li", "item")]),
        ("<p>a</b></i></div>b", [("", "ab")]),
        ("<h1></h1><h1> \n</h1>", []),
        ("<p dir=rtl>مرحبا بالعالم</p>", [("", "مرحبا بالعالم")]),
    ],
)
def test_broken_html_gives_what_a_browser_would_show(page: str, blocks: list[tuple[str, str]]) -> None:
    assert kinds_and_texts(html_outline(page)) == blocks


def test_pages_nested_deeper_than_the_stack_are_read() -> None:
    assert kinds_and_texts(html_outline("<div>" * 5000 + "deep")) == [("", "deep")]


def test_markdown_becomes_blocks() -> None:
    text = """---
title: Pots
---
# The *moka* pot

Boils [good coffee](../drinks/coffee.md)
fast.

- one
- two

  still two

| a | b |
|---|---|
| 1 | 2 |

```sh
brew
```

<details><summary>Why?</summary>Because.</details>

## Why not tea?
A `leaf` matter. [x](<>)
"""
    outline = markdown_outline(text)
    assert kinds_and_texts(outline) == [
        ("h1", "The moka pot"),
        ("", "Boils good coffee fast."),
        ("li", "one"),
        ("li", "two"),
        ("li", "still two"),
        ("tr", "a b"),
        ("tr", "1 2"),
        ("pre", "brew"),
        ("h7", "Why?"),
        ("", "Because."),
        ("h2", "Why not tea?"),
        ("", "A leaf matter. x"),
    ]
    assert outline.title == "Pots"
    assert outline.links == (Link("good coffee", "../drinks/coffee.md"),)
    assert markdown_outline("text\n\n# Head").title == "Head"
    assert markdown_outline("") == Outline("", ())


def test_plain_text_becomes_blocks() -> None:
    text = "The moka pot\n\nUse\n===\nIt boils\nwater.\n\n- one\n  more\n2. two\n\nSmall\n-----\n\nEnd.\n"
    outline = text_outline(text)
    assert outline.title == "The moka pot"
    assert kinds_and_texts(outline) == [
        ("h1", "The moka pot"),
        ("h3", "Use"),
        ("", "It boils water."),
        ("li", "one more"),
        ("li", "two"),
        ("h4", "Small"),
        ("", "End."),
    ]


@pytest.mark.parametrize(
    "text", ["", "\n \n", "One sentence.", "A title alone", "First sentence.\n\nSecond."]
)
def test_plain_text_without_a_title_has_none(text: str) -> None:
    assert text_outline(text).title == ""


@given(st.text("<>/pahbrliuldtd12 #*-[]()|`\n\u0640\u05d0字\0&;", max_size=60))
def test_any_text_is_read_as_any_format_and_no_block_is_blank(text: str) -> None:
    for read in (html_outline, markdown_outline, text_outline):
        for block in read(text).blocks:
            assert isinstance(block, Block)
            assert block.text.strip()
