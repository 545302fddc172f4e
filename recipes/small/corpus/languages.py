"""One code for each language, and which scripts write much in few characters."""

from __future__ import annotations

DENSE = frozenset({"ja", "zh", "zh-TW", "ko", "th", "km"})
"""Languages of which a character holds as much as two or three Latin letters."""

_ISO3 = (
    "ara ar, ben bn, bul bg, cat ca, ces cs, cmn zh, dan da, deu de, ell el, eng en, est et, eus eu, fin fi, "
    "fra fr, heb he, hin hi, hun hu, ind id, ita it, jpn ja, kat ka, kor ko, lit lt, mal ml, mar mr, nld nl, "
    "nob nb, pes fa, pol pl, por pt, ron ro, rus ru, slk sk, slv sl, spa es, srp sr, swe sv, swh sw, swa sw, "
    "tam ta, tel te, tgl tl, tha th, tur tr, ukr uk, urd ur, vie vi, "
    "bem bem, fon fon, hau ha, ibo ig, kin rw, twi tw, yor yo, zul zu"
)
_SAME: dict[str, str] = {
    "zh-CN": "zh",
    "zh-Hans": "zh",
    "zh-Hant": "zh-TW",
    "pt-PT": "pt",
    "en-US": "en",
    "C": "en",
    "no": "nb",
    **{pair.partition(" ")[0]: pair.partition(" ")[2] for pair in _ISO3.split(", ")},
}


def canonical(code: str) -> str:
    """The code that this corpus uses: two letters where there are such, a region only where it is written differently.

    Args:
        code: "de", "de_DE" is kept as "de-DE"; "zh_CN" is "zh", "jpn" is "ja", "no" is "nb".
    """
    code = code.replace("_", "-")
    return _SAME.get(code, code)


def weight(text: str, language: str) -> float:
    """The length of a text in Latin letters, roughly: what makes lengths of different scripts comparable."""
    return len(text) * (2.4 if language in DENSE else 1.0)
