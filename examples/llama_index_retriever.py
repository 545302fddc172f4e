"""Search with LlamaIndex: nodes with scores, and a post-processor of LlamaIndex's own.

Usage: python examples/llama_index_retriever.py [INDEX]     (a folder, or http://host:8080/name of a server)
"""

import sys
import tempfile
from pathlib import Path

from llama_index.core.postprocessor import SimilarityPostprocessor

from triptych import Encoder, Index
from triptych.integrations.llama_index import TriptychNodeRetriever

QUESTION = "How do I brew coffee without a machine?"


def ask(index: str | Index) -> None:
    """Prints the nodes for a question."""
    nodes = TriptychNodeRetriever(index, similarity_top_k=3).retrieve(QUESTION)
    for node in SimilarityPostprocessor(similarity_cutoff=0.5).postprocess_nodes(nodes):
        print(f"{node.score:.3f}  {node.node_id}  {node.text}")


def main() -> None:
    """Asks the index that is named, or a new one in a temporary folder."""
    if len(sys.argv) > 1:
        ask(sys.argv[1])
        return
    encoder = Encoder.from_pretrained("small")
    with tempfile.TemporaryDirectory() as folder, Index.create(Path(folder) / "my.index", encoder) as index:
        index.add(
            ["moka", "tea", "volcan"],
            [
                "A moka pot brews coffee on the stove by steam pressure.",
                "Green tea is brewed with water that is not quite boiling.",
                "Un volcan est une ouverture dans la croûte terrestre.",
            ],
        )
        ask(index)


if __name__ == "__main__":
    main()
