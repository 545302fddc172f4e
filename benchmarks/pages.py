"""Pages whose tables stand between marks, so that a script can make them anew."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path


def fill(text: str, parts: Mapping[str, str], page: Path) -> str:
    """The text with what is between ``<!-- NAME -->`` and the next ``<!-- end -->`` replaced, for each name.

    Ends the program if a page does not have the mark of a name once.
    """
    for name, made in parts.items():
        mark = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text, found = re.subn(mark, lambda m, made=made: f"{m[1]}{made}{m[2]}", text, flags=re.DOTALL)
        if found != 1:
            sys.exit(f"{page}: expected one place for {name!r}, got {found}")
    return text
