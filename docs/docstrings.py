"""For the API pages: sections `Example:` of docstrings are code, as sections `Examples:` are."""

import re
from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Renames the sections before they are parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for every module, class and function."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE
            )
