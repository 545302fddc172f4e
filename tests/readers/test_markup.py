"""Markdown and HTML become the text that a reader sees."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.markup import Plain, plain_html, plain_markdown, plain_text
from triptych.records import Section


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        (
            'Some *very* **bold** `code` and ~~old~~ [words](http://x.org "t").',
            "Some very bold code and old words.",
        ),
        ("one\ntwo  \nthree\n\nfour", "one two\nthree\n\nfour"),
        ("- a\n- b\n  1. c\n", "a\nb\nc"),
        ("> quoted\n\n***\n\nafter", "quoted\n\nafter"),
        ("```python\ndef f():\n\n    return 1\n```", "def f():\n\n    return 1"),
        ("![a *cat*](cat.png) sits", "a cat sits"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a b\n1 2"),
        ("x <b>bold</b><br>y <!-- no -->", "x bold\ny"),
        ("<div>seen <script>not</script></div>\n\nmore", "seen\n\nmore"),
        ("AT&amp;T &copy; \\*star\\*", "AT&T © *star*"),
        ("漢字と\nかな", "漢字と かな"),
    ],
)
def test_markdown_becomes_plain_text(markdown: str, text: str) -> None:
    assert plain_markdown(markdown) == Plain(text, None)


def test_the_first_top_heading_of_markdown_is_its_title() -> None:
    sections = (Section(0), Section(7, ("The title",)), Section(18, ("Other",)))
    assert plain_markdown("intro\n\n# The *title*\n\n# Other\n") == Plain(
        "intro\n\nThe title\n\nOther", "The title", sections
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
    body, head = plain_markdown(front + "body"), plain_markdown(front + "# Head")
    assert (body.text, body.title) == ("body", title)
    assert (head.text, head.title) == ("Head", title or "Head")


def test_text_between_two_thematic_breaks_is_not_front_matter() -> None:
    text = "Not a key at all.\n\nrest"
    assert plain_markdown("---\n\nNot a key at all.\n\n---\n\nrest").text == text
    assert plain_markdown("---\nkey: but never closed\n").text == "key: but never closed"


def test_html_becomes_its_visible_text() -> None:
    page = """<!DOCTYPE html><html><head><title> The\n title </title><style>p {}</style></head>
    <body><!-- no --><script>var no;</script><h1>Head</h1>
    <p>Hel<b>lo</b>,   wor<i>ld</i>!<br>next&nbsp;&amp; last</p><p hidden>no</p><noscript>no</noscript>
    <table><tr><td>a</td><td>b</td></tr><tr><td>c<td>d</table><select><option>no</select>
    <pre>def f():\n\treturn  1</pre><ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>字
    <div>x<div>y</div></div></body>"""
    text = "Head\n\nHello, world!\nnext & last\n\na b\nc d\n\ndef f():\n\treturn  1\n\n漢字\n\nx\n\ny"
    assert plain_html(page) == Plain(text, "The title", (Section(0, ("Head",)),))


def test_html_without_a_title_is_called_by_its_first_heading() -> None:
    assert plain_html("<p>x<h1>A <i>b</i></h1>").title == "A b"
    assert plain_html("<svg><title>no</title></svg><p>x") == Plain("x", None)


def test_html_nested_ten_thousand_deep_is_read() -> None:
    assert plain_html("<div>" * 10_000 + "deep").text == "deep"


@given(st.text(max_size=80))
def test_any_text_is_accepted_as_html_and_markdown(text: str) -> None:
    for plain in (plain_html(text), plain_markdown(text)):
        assert plain.text == plain.text.strip("\n")
        starts = [section.start for section in plain.sections]
        assert starts == sorted(set(starts))
        assert not starts or (starts[0] == 0 and starts[-1] < len(plain.text))


@given(st.lists(st.text("abcäß字 ", min_size=1).filter(str.strip), min_size=1))
def test_paragraphs_keep_their_words_in_html_and_markdown(paragraphs: list[str]) -> None:
    words = [" ".join(p.split(" ")).split() for p in paragraphs]
    html = plain_html("".join(f"<p>{p}</p>" for p in paragraphs)).text
    markdown = plain_markdown("\n\n".join(p.strip() for p in paragraphs)).text
    assert [line.split() for line in html.split("\n\n")] == words
    assert [line.split() for line in markdown.split("\n\n")] == words


def test_headings_of_all_kinds_of_text_make_sections() -> None:
    expected = [(), ("A",), ("A", "B b"), ("A", "C"), ("D",)]
    for plain in (
        plain_markdown("in\n\n# A\n\na\n\n## B *b*\n\n### \n\nb\n\nC\n---\n\n# D\n"),
        plain_html("in<h1>A</h1><p>a<h2>B <i>b</i></h2>b<h2>C</h2><h1>D"),
        plain_text("in\n\nA\n===\na\n\nB b\n---\nb\n\nC\n---\n\nD\n===\n"),
    ):
        assert [section.headings for section in plain.sections] == expected
        for section in plain.sections[1:]:
            assert plain.text[section.start :].startswith(section.headings[-1])


def test_text_without_headings_has_no_sections() -> None:
    for plain in (plain_markdown("a\n\nb"), plain_html("<p>a<p>b"), plain_text("a\n\n---\n\nb\n-\n")):
        assert plain.sections == ()


def test_code_and_tables_stay_whole() -> None:
    code = "def f():\n    a = 1\n\n\n    return a"
    for plain in (
        plain_markdown(f"x\n\n```\n{code}\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"),
        plain_html(f"x<pre>{code}</pre><table><tr><th>a<th>b<tr><td>1<td>2</table>"),
    ):
        assert plain.text == f"x\n\n{code}\n\na b\n1 2"


def test_front_matter_becomes_metadata_as_json_can_hold_it() -> None:
    front = (
        "title: T\nlanguage: de\ntags: [a, b]\ndate: 2020-01-31\nat: 2020-01-31T10:00:00Z\nn: 3\n"
        "price: 1.5\nodd: .nan\nnothing: null\n7: seven\nauthor:\n  name: Ann\n"
    )
    metadata = plain_markdown(f"---\n{front}---\nbody").metadata
    assert metadata == {
        "lang": "de",
        "tags": ["a", "b"],
        "date": "2020-01-31",
        "at": "2020-01-31T10:00:00+00:00",
        "n": 3,
        "price": 1.5,
        "7": "seven",
        "author": {"name": "Ann"},
    }
    toml = plain_markdown('+++\ntitle = "T"\ndate = 2020-01-31\n[extra]\nx = 1\n+++\nbody')
    assert (toml.title, toml.metadata) == ("T", {"date": "2020-01-31", "extra": {"x": 1}})
    assert plain_markdown("---\ntitle: A: b\nkey: [\n---\nbody").metadata == {}


def test_front_matter_that_grows_without_end_is_left_out() -> None:
    levels = [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9)]
    bomb = "\n".join(["a0: &a0 [x, x]", *levels])
    plain = plain_markdown(f"---\n{bomb}\n---\nbody")
    assert (plain.text, plain.metadata) == ("body", {})
    deep = plain_markdown(f"---\na: {'[' * 5000}\n---\nbody")
    assert (deep.text, deep.metadata) == ("body", {})


PAGE = """<html lang="en"><head><title>Pots - The manual</title><meta name="author" content="Ann">
<meta property="article:published_time" content="2020-01-31"></head><body>
<header><a href="/">The manual</a></header><div class="related" role="navigation">next</div>
<div class="toc"><p>Table of Contents<ul><li>Pots</ul></div>
<main><article><header><h1>Pots<a class="headerlink" href="#p">¶</a></h1><p>By Ann</header>
<p>Text.<footer>A note.</footer></article></main><footer>(c) 2020</footer></body></html>"""


def test_what_stands_around_the_text_of_a_page_is_left_out() -> None:
    plain = plain_html(PAGE.replace("¶", "").replace("Pots - The", "The"))
    assert plain.text == "Pots\n\nBy Ann\n\nText.\n\nA note."
    assert plain.title == "The manual"
    assert plain.metadata == {"lang": "en", "author": "Ann", "created": "2020-01-31"}


def test_a_title_that_says_the_heading_with_more_words_is_the_heading() -> None:
    assert plain_html("<title>Pots - The manual</title><h1>Pots</h1>x").title == "Pots"


def test_links_of_headings_to_themselves_and_to_the_text_are_left_out() -> None:
    page = (
        '<a href="#x">Skip to content</a><h1>Pots<a href="#x">#</a></h1><p>See <a href="#y">lids</a> in C#.'
    )
    assert plain_html(page).text == "Pots\n\nSee lids in C#."


def test_a_page_of_navigation_only_keeps_its_text() -> None:
    assert plain_html("<nav><a href=x>one</a></nav>").text == "one"


@pytest.mark.slow
def test_time_for_nested_html_grows_with_its_size() -> None:
    def seconds(depth: int) -> float:
        start = time.process_time()
        plain_html("<table><tr><td>" * depth + "x")
        return time.process_time() - start

    seconds(1000)
    assert seconds(160_000) < 10 * seconds(40_000)
