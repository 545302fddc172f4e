"""What a word is, in any script."""

import re

WORD = re.compile(
    # letters and digits, and the marks that belong to them: accents, points, vowel signs
    r"[\w\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e"
    r"\u0f71-\u0f84\u102b-\u103e\u17b4-\u17d3]+"
)
"""A run of letters, digits and marks (which Python's ``\\w`` leaves out)."""
