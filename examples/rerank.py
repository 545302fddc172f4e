"""Re-rank what another search found, with the exact scores and without an index, and say why.

Usage: python examples/rerank.py [MODEL]
"""

import sys

import numpy as np

from triptych import Encoder, HeadWeights
from triptych.explain import explain

QUERY = "Which instrument measures air pressure?"
FOUND = [
    "A thermometer measures temperature.",
    "A barometer is an instrument that measures the pressure of the air.",
    "Air pressure falls before a storm.",
]


def main() -> None:
    """Ranks FOUND by the weighted sum of the three scores."""
    encoder = Encoder.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "small")
    scores = encoder.score(QUERY, FOUND, HeadWeights(dense=1, lexical=0.3, multi=1))[0]
    for i in np.argsort(-scores, kind="stable"):
        print(f"{scores[i]:.3f}  {FOUND[i]}")
    [why] = explain(encoder, QUERY, [FOUND[int(scores.argmax())]])
    for match in why.lexical[:3]:
        print(f"  in common: {match.document_token.word} ({match.contribution:.3f})")
    for match in why.tokens:
        if match.query_token.kind == "text":
            print(f"  {match.query_token.piece} met {match.document_token.piece} ({match.similarity:.2f})")


if __name__ == "__main__":
    main()
