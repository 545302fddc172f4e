"""Small documents for the tests."""

from triptych.tools.pairs.base import Block, StructuredDocument


def document(
    *blocks: tuple[str, str], title: str = "", lang: str = "en", key: str = "k", **more: object
) -> StructuredDocument:
    """A document of (kind, text) blocks, numbered in order."""
    numbered = tuple(Block(i, kind, text) for i, (kind, text) in enumerate(blocks))
    return StructuredDocument("made", key, lang, title, numbered, **more)  # type: ignore[arg-type]


LONG = "Water is boiled in the lower part and its steam presses it through the ground coffee above."
OTHER = "Cold water dissolves less of the bitter parts, so that the coffee tastes milder in the end."
