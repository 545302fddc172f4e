"""Markdown and HTML become the text that a reader sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.markup import Plain, plain_html, plain_markdown


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        (
            'Some *very* **bold** `code` and ~~old~~ [words](http://x.org "t").',
            "Some very bold code and old words.",
        ),
        ("one\ntwo  \nthree\n\nfour", "one two\nthree\nfour"),
        ("- a\n- b\n  1. c\n", "a\nb\nc"),
        ("> quoted\n\n***\n\nafter", "quoted\nafter"),
        ("```python\ndef f():\n\n    return 1\n```", "def f():\n    return 1"),
        ("![a *cat*](cat.png) sits", "a cat sits"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a b\n1 2"),
        ("x <b>bold</b><br>y <!-- no -->", "x bold\ny"),
        ("<div>seen <script>not</script></div>\n\nmore", "seen\nmore"),
        ("AT&amp;T &copy; \\*star\\*", "AT&T © *star*"),
        ("漢字と\nかな", "漢字と かな"),
    ],
)
def test_markdown_becomes_plain_text(markdown: str, text: str) -> None:
    assert plain_markdown(markdown) == Plain(text, None)


def test_the_first_top_heading_of_markdown_is_its_title() -> None:
    assert plain_markdown("intro\n\n# The *title*\n\n# Other\n") == Plain(
        "intro\nThe title\nOther", "The title"
    )
    assert plain_markdown("Under\nlined\n===\n\nx").title == "Under lined"
    assert plain_markdown("## second level only").title is None


@pytest.mark.parametrize(
    ("front", "title"),
    [
        ('---\ntitle: "A: b"\ntags:\n  - x\n- y\n# c\n\n---\n', "A: b"),
        ("---\ndate: 2020-01-01\n...\n", None),
        ("+++\ntitle = 'T'\n[extra]\nx = 1\n+++\n", "T"),
    ],
)
def test_front_matter_is_dropped_but_for_its_title(front: str, title: str | None) -> None:
    assert plain_markdown(front + "body") == Plain("body", title)
    assert plain_markdown(front + "# Head") == Plain("Head", title or "Head")


def test_text_between_two_thematic_breaks_is_not_front_matter() -> None:
    assert plain_markdown("---\n\nNot a key at all.\n\n---\n\nrest").text == "Not a key at all.\nrest"
    assert plain_markdown("---\nkey: but never closed\n").text == "key: but never closed"


def test_html_becomes_its_visible_text() -> None:
    page = """<!DOCTYPE html><html><head><title> The\n title </title><style>p {}</style></head>
    <body><!-- no --><script>var no;</script><h1>Head</h1>
    <p>Hel<b>lo</b>,   wor<i>ld</i>!<br>next&nbsp;&amp; last</p><p hidden>no</p><noscript>no</noscript>
    <table><tr><td>a</td><td>b</td></tr><tr><td>c<td>d</table><select><option>no</select>
    <pre>def f():\n\treturn  1</pre><ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>字
    <div>x<div>y</div></div></body>"""
    assert plain_html(page) == Plain(
        "Head\nHello, world!\nnext\xa0& last\na b\nc d\ndef f():\n        return  1\n漢字\nx\ny", "The title"
    )


def test_html_without_a_title_is_called_by_its_first_heading() -> None:
    assert plain_html("<p>x<h1>A <i>b</i></h1>").title == "A b"
    assert plain_html("<svg><title>no</title></svg><p>x") == Plain("x", None)


def test_html_nested_ten_thousand_deep_is_read() -> None:
    assert plain_html("<div>" * 10_000 + "deep").text == "deep"


@given(st.text(max_size=80))
def test_any_text_is_accepted_as_html_and_markdown(text: str) -> None:
    for plain in (plain_html(text), plain_markdown(text)):
        assert plain.text == plain.text.strip()
        assert "\n\n" not in plain.text


@given(st.lists(st.text("abcäß字 ", min_size=1).filter(str.strip), min_size=1))
def test_paragraphs_keep_their_words_in_html_and_markdown(paragraphs: list[str]) -> None:
    words = [" ".join(p.split(" ")).split() for p in paragraphs]
    html = plain_html("".join(f"<p>{p}</p>" for p in paragraphs)).text
    markdown = plain_markdown("\n\n".join(p.strip() for p in paragraphs)).text
    assert [line.split() for line in html.split("\n")] == words
    assert [line.split() for line in markdown.split("\n")] == words
