"""Search with LangChain: a retriever in a chain that writes the prompt for a language model.

Usage: python examples/langchain_retriever.py [INDEX]     (a folder, or http://host:8080/name of a server)
"""

import sys
import tempfile
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from triptych import Encoder, Index
from triptych.integrations.langchain import TriptychRetriever, TriptychVectorStore

PROMPT = ChatPromptTemplate.from_template(
    "Answer from these sources only.\n\n{sources}\n\nQuestion: {question}"
)


def show(documents: list[Document]) -> str:
    """The sources as the model reads them."""
    return "\n".join(f"[{document.id}] {document.page_content}" for document in documents)


def ask(index: str | Index) -> None:
    """Prints the prompt for a question; a chain would go on with ``| model``."""
    retriever = TriptychRetriever(index=index, k=2)
    chain = {"sources": retriever | show, "question": RunnablePassthrough()} | PROMPT
    print(chain.invoke("How do I brew coffee without a machine?").to_string())


def main() -> None:
    """Asks the index that is named, or a new one in a temporary folder."""
    if len(sys.argv) > 1:
        ask(sys.argv[1])
        return
    encoder = Encoder.from_pretrained("small")
    with tempfile.TemporaryDirectory() as folder, Index.create(Path(folder) / "my.index", encoder) as index:
        TriptychVectorStore(index).add_documents(
            [
                Document(id="moka", page_content="A moka pot brews coffee on the stove by steam pressure."),
                Document(id="tea", page_content="Green tea is brewed with water that is not quite boiling."),
                Document(id="volcan", page_content="Un volcan est une ouverture dans la croûte terrestre."),
            ]
        )
        ask(index)


if __name__ == "__main__":
    main()
