"""Encode more texts than fit in memory; stopped and started again, it goes on where it was.

Usage: python examples/encode_stream.py FILE.jsonl FOLDER [MODEL]
"""

import sys
from pathlib import Path

from triptych import Encoder
from triptych.documents import read_documents


def main() -> None:
    """Encodes the texts of FILE block by block into FOLDER."""
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    encoder = Encoder.from_pretrained(sys.argv[3] if len(sys.argv) > 3 else "small")
    texts = (document.content for document in read_documents(source))
    done = 0
    for encoded in encoder.encode_stream(texts, block=256, folder=folder, outputs=("dense", "lexical")):
        done += len(encoded)
        weights = 0 if encoded.lexical is None else encoded.lexical.nnz
        print(f"{done} texts, {weights / len(encoded):.0f} lexical weights each")


if __name__ == "__main__":
    main()
