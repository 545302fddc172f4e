"""Packages as documents, on files in the form that the packages have."""

import gzip
import struct
from pathlib import Path

import pytest

from corpus.debian import descriptions, rebuild
from corpus.debian.books import books
from corpus.debian.fetch import unpack
from corpus.debian.manuals import manuals
from corpus.debian.pages import gnome, libreoffice
from corpus.debian.words import catalogues, characters, dictionaries
from triptych.errors import DataError


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def script(path: Path, text: str) -> None:
    put(path, "#!/bin/sh\n" + text).chmod(0o755)


HELP = """<html><head><title>{title}</title></head><body><div id="DisplayArea">
<meta itemprop="keywords" content="{keyword}"><h1 id="hd_1">{title}</h1>
<p id="par_2">{first}</p><p id="par_3">{second}</p>
<p>without an id</p></div></body></html>"""


def test_help_pages_meet_by_the_ids_of_their_paragraphs(tmp_path: Path) -> None:
    base = tmp_path / "usr/share/libreoffice/help"
    english = {
        "title": "Tables",
        "keyword": "tables,insert",
        "first": "Choose Insert - Table.",
        "second": "OK",
    }
    german = {
        "title": "Tabellen",
        "keyword": "Tabellen,einfügen",
        "first": "Wählen Sie Einfügen.",
        "second": "OK",
    }
    put(base / "en-US/text/swriter/a.html", HELP.format(**english))
    put(
        base / "de/text/swriter/a.html",
        HELP.format(**german).replace('<p id="par_2">', '<p id="new">n</p><p id="par_2">'),
    )
    put(base / "de/text/swriter/empty.html", "<html><body>no page</body></html>")
    by_language = {record["l"]: record for record in libreoffice([tmp_path])}
    assert by_language["en"] == {
        "s": "lo",
        "k": "swriter/a",
        "l": "en",
        "t": "Tables",
        "kw": ["tables,insert"],
        "p": [[0, "h1", "Tables"], [1, "", "Choose Insert - Table."], [2, "", "OK"]],
    }
    assert by_language["de"]["p"] == [
        [0, "h1", "Tabellen"],
        [1, "", "Wählen Sie Einfügen."],
        [2, "", "OK"],
        [3, "", "n"],
    ]


def test_help_paragraphs_left_in_english_are_no_translations(tmp_path: Path) -> None:
    base = tmp_path / "usr/share/libreoffice/help"
    fields = {"title": "T", "keyword": "k", "first": "This paragraph is long enough.", "second": "x"}
    for lang in ("en-US", "de"):
        put(base / lang / "text/a.html", HELP.format(**fields))
    german = next(record for record in libreoffice([tmp_path]) if record["l"] == "de")
    assert [text for _, _, text in german["p"]] == ["T", "x"]


PAGE = """<page xmlns="http://projectmallard.org/1.0/"><info><desc>{desc}</desc><credit><p>skipped</p></credit></info>
<title>{title}</title><p>{one}</p><section><title>{head}</title><p>{two}</p></section></page>"""


def test_mallard_pages_are_numbered_by_their_paragraphs(tmp_path: Path) -> None:
    fields = {
        "desc": "What it is",
        "title": "Sound problems",
        "one": "Turn <em>it</em> up a little.",
        "head": "More",
        "two": "z" * 30,
    }
    put(tmp_path / "usr/share/help/C/gnome-help/sound.page", PAGE.format(**fields))
    put(
        tmp_path / "usr/share/help/de/gnome-help/sound.page",
        PAGE.format(**fields | {"title": "Ton", "one": "Machen Sie ihn bitte ein wenig lauter als vorher."}),
    )
    put(tmp_path / "usr/share/help/fr/gnome-help/sound.page", "<page")
    english, german = gnome([tmp_path])
    assert (english["l"], english["k"], english["d"]) == ("en", "gnome-help/sound", "What it is")
    assert [kind for _, kind, _ in english["p"]] == ["", "h2", ""]
    assert english["p"][0][2] == "Turn it up a little."
    assert german["l"] == "de"
    assert [number for number, _, _ in german["p"]] == [number for number, _, _ in english["p"][:2]]


BOOK = """<?xml version="1.0"?><html><head><title>Chapter</title></head><body><div class="navheader">skip</div>
<h1>Chapter</h1><p>{intro}</p><h2>1.1. First</h2><p>{first}<br>cut</p><ul><li>item</li></ul></body></html>"""


def test_books_become_sections_with_a_line_for_each_paragraph(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/doc/installation-guide-amd64"
    put(folder / "en/ch1.html", BOOK.format(intro="i" * 60, first="This one was never translated at all."))
    put(folder / "pt_BR/ch1.html", BOOK.format(intro="j" * 90, first="This one was never translated at all."))
    put(folder / "de/short.html", "<html><body><p>short</p></body></html>")
    english, brazilian = books([tmp_path])
    assert (english["s"], english["k"], english["l"], brazilian["l"]) == ("iguide", "ch1", "en", "pt-BR")
    assert english["p"] == [
        [0, "h1", "Chapter"],
        [0, "", "i" * 60],
        [1, "h2", "1.1. First"],
        [1, "", "This one was never translated at all.\ncut\nitem"],
    ]
    assert brazilian["p"][-1] == [1, "", "cut\nitem"]


def test_a_manual_page_is_called_by_its_name_line(tmp_path: Path) -> None:
    html = '<table class="head"><tr><td>LS(1)</td></tr></table><h1>NAME</h1><p>ls - list files</p><h1>DESCRIPTION</h1>'
    script(tmp_path / "mandoc/usr/bin/mandoc", f"cat <<'E'\n{html}<p>{'d' * 120}</p>\nE\n")
    page = tmp_path / "manpages-de/usr/share/man/de/man1/ls.1.gz"
    page.parent.mkdir(parents=True)
    page.write_bytes(gzip.compress(b".TH LS 1\n"))
    (record,) = manuals([tmp_path / "mandoc", tmp_path / "manpages-de"])
    assert (record["k"], record["l"], record["t"]) == ("ls.1", "de", "list files")
    assert record["p"][:2] == [[0, "h1", "NAME"], [0, "", "ls - list files"]]
    with pytest.raises(DataError, match="mandoc is missing"):
        list(manuals([tmp_path / "manpages-de"]))


def index(text: str, paragraph: str, lang: str) -> str:
    head = f"Package: x\nDescription-md5: {'a' * 32}\n"
    return f"{head}Description-{lang}: {text}\n {paragraph}\n  more\n .\n Second.\n\n"


def test_descriptions_are_kept_where_several_languages_have_them() -> None:
    long = "An English paragraph of some length that a translator may have left as it is."
    given = {"en": index("tool", long, "en"), "it": index("t", long, "it")}
    given |= {
        lang: index(f"{lang} tool", f"{lang} paragraph of some length, and so on", lang)
        for lang in ("de", "fr", "ja")
    }
    found = {record["l"]: record for record in descriptions.records(given)}
    assert sorted(found) == ["de", "en", "fr", "ja"]  # Italian was left in English
    assert found["de"]["k"] == "a" * 8
    assert found["de"]["p"] == [
        [0, "", "de paragraph of some length, and so on"],
        [1, "", "more"],
        [2, "", "Second."],
    ]
    assert not list(descriptions.records({"en": given["en"], "de": given["de"]}))


def catalogue(entries: dict[str, str]) -> bytes:
    """A .mo file as gettext defines it."""
    pairs = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", **entries}.items())
    head = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    place, tables, data = 28 + 16 * len(pairs), [b"", b""], b""
    for side in (0, 1):
        for pair in pairs:
            text = pair[side].encode()
            tables[side] += struct.pack("<2I", len(text), place + len(data))
            data += text + b"\0"
    return head + tables[0] + tables[1] + data


def test_catalogues_give_strings_that_many_languages_translate(tmp_path: Path) -> None:
    languages = ("de", "fr", "it", "es", "pl", "sr@latin")
    for lang in languages:
        path = tmp_path / f"usr/share/locale/{lang}/LC_MESSAGES/iso_3166-1.mo"
        path.parent.mkdir(parents=True)
        path.write_bytes(
            catalogue(
                {"Ireland": f"{lang} Irland", "Chad": "Chad"} | ({"Peru": "Perù"} if lang == "it" else {})
            )
        )
    (record,) = catalogues([tmp_path])
    assert (record["s"], record["k"], record["en"]) == ("iso", "iso_3166-1", "Ireland")
    assert sorted(record["tr"]) == ["de", "es", "fr", "it", "pl", "sr"]


def test_annotations_give_name_and_keywords(tmp_path: Path) -> None:
    folder = tmp_path / "usr/share/unicode/cldr/common/annotations"
    both = '<annotation cp="!">bang | mark</annotation><annotation cp="!" type="tts">{}</annotation>'
    one = f"<ldml><annotations>{both}</annotations></ldml>"
    put(folder / "en.xml", one.format("exclamation mark"))
    put(folder / "de.xml", one.format("Ausrufezeichen"))
    (record,) = characters([tmp_path])
    assert record == {
        "s": "cldr",
        "k": "!",
        "tr": {"de": ["Ausrufezeichen", "bang | mark"], "en": ["exclamation mark", "bang | mark"]},
    }


def test_dictionaries_are_read_by_their_index(tmp_path: Path) -> None:
    entries = ["Haus /haʊs/ <n>\n1. house, home\n2. building; family\n", "gehen\ngo\n"]
    folder = tmp_path / "usr/share/dictd"
    folder.mkdir(parents=True)
    (folder / "freedict-deu-eng.dict.dz").write_bytes(gzip.compress("".join(entries).encode()))
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    start, lines = 0, ""
    for word, entry in zip(("haus", "gehen"), entries, strict=True):
        size = len(entry.encode())
        lines += f"{word}\t{digits[start]}\t{digits[size // 64] if size > 63 else ''}{digits[size % 64]}\n"
        start += size
    put(folder / "freedict-deu-eng.index", lines)
    found = list(dictionaries([tmp_path]))
    assert found[0] == {"s": "fd", "k": "deu-eng", "w": "Haus", "tr": ["house", "home", "building"]}
    assert found[1]["tr"] == ["go"]


def test_packages_are_fetched_once_and_a_failure_says_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    script(
        tools / "apt-get",
        'test "$3" = gone && { echo "no such package" >&2; exit 100; }; echo "$3" >> "$LOG"; touch "$3.deb"\n',
    )
    script(tools / "dpkg", 'mkdir -p "$3/usr"\n')
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    assert unpack(["one", "two"], tmp_path / "p") == [tmp_path / "p/one", tmp_path / "p/two"]
    unpack(["two"], tmp_path / "p")
    assert (tmp_path / "log").read_text().split() == ["one", "two"]
    assert (tmp_path / "p/one/usr").is_dir()
    with pytest.raises(DataError, match="no such package"):
        unpack(["gone"], tmp_path / "p")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="is not installed"):
        unpack(["three"], tmp_path / "p")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gnom: [a]\n", "unknown part 'gnom'"),
        ("gnome: a\n", "is no list of names"),
        ("[1]\n", "expected parts"),
        ("{", "cannot be read"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rebuild.load(put(tmp_path / "recipe.yaml", text))


def test_the_recipe_of_the_project_can_be_read() -> None:
    recipe = rebuild.load(Path(__file__).parents[1] / "packages.yaml")
    assert set(recipe) == {*rebuild.READERS, rebuild.DESCRIPTIONS}
    assert all(len(set(packages)) == len(packages) for packages in recipe.values())
