"""Index a few texts in several languages and search them with all three heads.

Usage: python examples/search.py [MODEL]
"""

import sys
import tempfile
from pathlib import Path

from triptych import Encoder, Index

DOCUMENTS = {
    "moka": ("en", "A moka pot brews coffee by pushing boiling water through ground coffee."),
    "volcan": ("fr", "Un volcan est une ouverture par laquelle sortent la lave et les gaz."),
    "erdbeben": ("de", "Ein Erdbeben ist eine Erschütterung des Erdkörpers."),
    "tea": ("en", "Green tea should be brewed with water that is not quite boiling."),
}


def main() -> None:
    """Makes an index in a temporary folder, and shows the hits of three queries."""
    encoder = Encoder.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "small")
    with tempfile.TemporaryDirectory() as folder, Index.create(Path(folder) / "my.index", encoder) as index:
        languages, texts = zip(*DOCUMENTS.values(), strict=True)
        index.add(list(DOCUMENTS), texts, [{"lang": lang} for lang in languages])
        for query in ("How do I make coffee?", "lava", "¿Qué es un terremoto?"):
            print(query)
            for hit in index.search(query, k=2):
                scores = "  ".join(f"{head} {score:.3f}" for head, score in hit.scores.items())
                print(f"  {hit.score:.3f}  {hit.id:<9} {scores}")
        print("only French:", [hit.id for hit in index.search("fire", filter={"lang": "fr"})])


if __name__ == "__main__":
    main()
