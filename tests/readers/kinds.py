"""Small files of many kinds, as bytes."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

PICTURE = "q 9 0 0 9 0 0 cm BI /W 1 /H 1 /CS /G /BPC 8 ID x EI Q"


def pdf(pages: Sequence[Sequence[str] | None], bookmarks: Sequence[tuple[int, str, int]] = ()) -> bytes:
    """A PDF with lines of text on its pages (None: a picture), and bookmarks (level from 0, title, page from 0)."""
    objects: list[str] = ["", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    numbers: list[int] = []
    for lines in pages:
        moves = " ".join(f"({line}) Tj 0 -20 Td" for line in lines or ())
        content = PICTURE if lines is None else f"BT /F1 12 Tf 50 700 Td {moves} ET"
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
        resources = "/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 612 792]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {resources} /Contents {len(objects)} 0 R >>")
        numbers.append(len(objects))
    kids = " ".join(f"{number} 0 R" for number in numbers)
    objects[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(numbers)} >>"
    outline = len(objects) + 1
    objects[0] = f"<< /Type /Catalog /Pages 2 0 R /Outlines {outline} 0 R >>"
    entries: list[dict[str, Any]] = [{"level": -1, "kids": []}]
    open_ = [0]
    for level, title, page in bookmarks:
        del open_[level + 1 :]
        entries[open_[-1]]["kids"].append(len(entries))
        open_.append(len(entries))
        entries.append({"level": level, "title": title, "page": page, "kids": []})
    for number, entry in enumerate(entries):
        parts: list[str] = []
        if entry["kids"]:
            parts.append(f"/First {outline + entry['kids'][0]} 0 R /Last {outline + entry['kids'][-1]} 0 R")
        if number:
            above = next(n for n, other in enumerate(entries) if number in other["kids"])
            place = entries[above]["kids"].index(number)
            parts.append(f"/Title ({entry['title']}) /Parent {outline + above} 0 R")
            parts.append(f"/Dest [{numbers[entry['page']]} 0 R /Fit]")
            if entries[above]["kids"][place + 1 :]:
                parts.append(f"/Next {outline + entries[above]['kids'][place + 1]} 0 R")
        objects.append(f"<< {' '.join(parts)} >>")
    objects.append("<< /Title (A PDF) /Author (Ann) /CreationDate (D:20200131101500Z) >>")
    data, places = b"%PDF-1.4\n", list[int]()
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>"
    return data + f"{end}{trailer}\nstartxref\n{len(data)}\n%%EOF\n".encode()


def docx() -> bytes:
    import docx as library

    document = library.Document()
    document.core_properties.title = "A docx"
    document.core_properties.author = "Ann"
    document.add_heading("One", 1)
    document.add_paragraph("First.")
    for item in ("a", "b"):
        document.add_paragraph(item, style="List Bullet")
    document.add_heading("Inner", 2)
    table = document.add_table(2, 2)
    for row in range(2):
        for column in range(2):
            table.cell(row, column).text = f"c{row}{column}"
    document.add_heading("Two", 1)
    document.add_paragraph("Last.")
    return _bytes(document)


def paged_docx(pages: Sequence[Sequence[str]]) -> bytes:
    """A docx with paragraphs on pages, as Word notes them when it saves."""
    import docx as library
    from docx.oxml import OxmlElement

    document = library.Document()
    for number, paragraphs in enumerate(pages):
        for place, text in enumerate(paragraphs):
            run = document.add_paragraph().add_run(text)
            if number and not place:
                run._r.insert(0, OxmlElement("w:lastRenderedPageBreak"))
    return _bytes(document)


def odt(body: str = "") -> bytes:
    names = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "text", "table", "meta")
    )
    names += ' xmlns:dc="http://purl.org/dc/elements/1.1/"'
    body = body or (
        "<text:table-of-content><text:p>One 1</text:p></text:table-of-content>"
        "<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>"
        '<text:h text:outline-level="1">One</text:h><text:p>First<text:s text:c="2"/>of<text:line-break/>all.'
        "<office:annotation><text:p>a remark</text:p></office:annotation></text:p>"
        "<text:list><text:list-item><text:p>a</text:p></text:list-item>"
        "<text:list-item><text:p>b</text:p></text:list-item></text:list>"
        '<text:h text:outline-level="2"><text:soft-page-break/>Inner</text:h>'
        "<table:table><table:table-row><table:table-cell><text:p>x</text:p></table:table-cell>"
        "<table:table-cell><text:p>y</text:p></table:table-cell></table:table-row></table:table>"
        "<text:p>end of <text:soft-page-break/>two</text:p><text:p>Last.</text:p>"
    )
    content = f"<office:document-content {names}><office:body><office:text>{body}</office:text></office:body>"
    meta = (
        "<dc:title>An odt</dc:title><meta:initial-creator>Ann</meta:initial-creator>"
        "<meta:creation-date>2020-01-31T10:15:00</meta:creation-date><dc:language>fr</dc:language>"
    )
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"{content}</office:document-content>",
            "meta.xml": f"<office:document-meta {names}><office:meta>{meta}</office:meta></office:document-meta>",
        }
    )


def xlsx(sheets: Mapping[str, Sequence[Sequence[str | float | None]]]) -> bytes:
    """A workbook with strings and numbers in its cells."""
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    members: dict[str, str] = {}
    entries, links, types = "", "", ""
    for number, (name, rows) in enumerate(sheets.items(), 1):
        lines = ""
        for row, cells in enumerate(rows, 1):
            lines += f'<row r="{row}">'
            for column, value in enumerate(cells):
                place = f'r="{chr(65 + column)}{row}"'
                if isinstance(value, str):
                    lines += f'<c {place} t="inlineStr"><is><t>{value}</t></is></c>'
                elif value is not None:
                    lines += f"<c {place}><v>{value}</v></c>"
            lines += "</row>"
        members[f"xl/worksheets/s{number}.xml"] = (
            f"<worksheet {main}><sheetData>{lines}</sheetData></worksheet>"
        )
        entries += f'<sheet name="{name}" sheetId="{number}" r:id="r{number}"/>'
        links += (
            f'<Relationship Id="r{number}" Type="{relations}/worksheet" Target="worksheets/s{number}.xml"/>'
        )
        kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"
        types += f'<Override PartName="/xl/worksheets/s{number}.xml" ContentType="{kind}"/>'
    book = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
    members["[Content_Types].xml"] = (
        f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
        f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{book}"/>{types}</Types>'
    )
    members["_rels/.rels"] = (
        f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
    )
    members["xl/workbook.xml"] = (
        f'<workbook {main} xmlns:r="{relations}"><sheets>{entries}</sheets></workbook>'
    )
    members["xl/_rels/workbook.xml.rels"] = (
        f'<Relationships xmlns="{package}/relationships">{links}</Relationships>'
    )
    return zipped(members)


def pptx() -> bytes:
    import pptx as library

    show = library.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text = "Pots"
    slide.placeholders[1].text = "one\ntwo"
    slide.notes_slide.notes_text_frame.text = "say this"
    slide = show.slides.add_slide(show.slide_layouts[6])
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 10, 10).text_frame.text = "grouped"
    cells = slide.shapes.add_table(1, 2, 0, 0, 100, 100).table
    cells.cell(0, 0).text, cells.cell(0, 1).text = "x", "y"
    return _bytes(show)


def _bytes(file: Any) -> bytes:
    data = BytesIO()
    file.save(data)
    return data.getvalue()


def zipped(members: Mapping[str, bytes | str]) -> bytes:
    data = BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


OPF = """<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>A book</dc:title><dc:creator>Ann</dc:creator><dc:language>fr</dc:language></metadata>
<manifest><item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="a" href="text/a%20b.xhtml" media-type="application/xhtml+xml"/>
<item id="c" href="text/c.xhtml" media-type="application/xhtml+xml"/></manifest>
<spine><itemref idref="n"/><itemref idref="c"/><itemref idref="a"/></spine></package>"""


def epub() -> bytes:
    rootfile = '<rootfile full-path="OEBPS/p.opf"/>'
    container = f'<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">{rootfile}</container>'
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OEBPS/p.opf": OPF,
            "OEBPS/nav.xhtml": "<html><body><nav><a href='c.xhtml'>contents</a></nav></body></html>",
            "OEBPS/text/a b.xhtml": "<html><body><h1>Second</h1><p>B.</p></body></html>",
            "OEBPS/text/c.xhtml": "<html><body><h1>First</h1><p>A.</p><h2>Inner</h2><p>I.</p></body></html>",
        }
    )


def notebook() -> bytes:
    cells = [
        {"cell_type": "markdown", "source": ["# Pots\n", "\n", "How to *make* them."]},
        {"cell_type": "code", "source": "x = 1\n\nprint(x)", "outputs": [{"text": "1"}]},
        {"cell_type": "markdown", "source": "## More"},
    ]
    return json.dumps({"cells": cells, "metadata": {"kernelspec": {"language": "python"}}}).encode()


RST = b"""
Pots
====

:Author: Ann

In :class:`Foo` and :py:func:`bar <x.bar>` and ``code``.

.. toctree::
   :maxdepth: 2

   other

Inner
-----

.. function:: make(pot)

   Makes a **pot**.

   .. versionadded:: 3.1
      Now with a lid.

.. code-block:: python

   x = 1

   y = 2

- a
- b

===  ===
k    v
===  ===
1    2
===  ===

.. include:: /etc/passwd

.. raw:: html

   <b>no</b>
"""

MAIL = b"""From: Ann <ann@example.org>
To: Bo <bo@example.org>
Subject: =?utf-8?q?T=C3=B6pfe?= and
 lids
Date: Fri, 31 Jan 2020 10:15:00 +0100
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=B

--B
Content-Type: multipart/alternative; boundary=C

--C
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Sch=F6ne T=F6pfe.
--C
Content-Type: text/html

<p>no</p>
--C--
--B
Content-Type: application/pdf
Content-Disposition: attachment; filename=pot.pdf

x
--B--
"""
