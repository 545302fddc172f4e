"""Small files of many kinds, as bytes."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any


def pdf(pages: Sequence[Sequence[str]], bookmarks: Sequence[tuple[int, str, int]] = ()) -> bytes:
    """A PDF with lines of text on its pages, and bookmarks (level from 0, title, page from 0)."""
    objects: list[str] = ["", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    numbers: list[int] = []
    for lines in pages:
        moves = " ".join(f"({line}) Tj 0 -20 Td" for line in lines)
        content = f"BT /F1 12 Tf 50 700 Td {moves} ET"
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
