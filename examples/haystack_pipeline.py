"""Search with Haystack: a retriever in a pipeline that writes the prompt for a language model.

Usage: python examples/haystack_pipeline.py [INDEX]     (a folder, or http://host:8080/name of a server)
"""

import sys
import tempfile
from pathlib import Path

from haystack import Pipeline
from haystack.components.builders import PromptBuilder

from triptych import Encoder, Index
from triptych.integrations.haystack import TriptychTextRetriever

TEMPLATE = """Answer from these sources only.
{% for document in documents %}
[{{ document.id }}] {{ document.content }}{% endfor %}

Question: {{ question }}"""


def ask(index: str | Index) -> None:
    """Prints the prompt for a question; a generator would be the next component."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", TriptychTextRetriever(index, top_k=2))
    pipeline.add_component("prompt", PromptBuilder(TEMPLATE, required_variables="*"))
    pipeline.connect("retriever.documents", "prompt.documents")
    question = "How do I brew coffee without a machine?"
    found = pipeline.run({"retriever": {"query": question}, "prompt": {"question": question}})
    print(found["prompt"]["prompt"])


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
