"""The size of the package is a budget: raise a number only in a commit that says why (docs/adr/0027-size.md)."""

import ast
import io
import json
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest

import triptych

ROOT = Path(triptych.__file__).parent
CORE = ("types.py", "io.py", "scores", "model", "encode", "index")
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}

MODULES = 202
CODE_LINES = 35_100
CORE_LINES = 11_260
LONGEST_MODULE = 950


def code_lines(path: Path) -> int:
    """Lines that are neither blank, nor a comment, nor part of a docstring."""
    source = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


PATHS = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py")
SIZES = {path.relative_to(ROOT): code_lines(path) for path in PATHS}


def test_the_package_has_no_more_modules_than_its_budget() -> None:
    assert len(SIZES) <= MODULES


def test_the_package_has_no_more_lines_of_code_than_its_budget() -> None:
    assert sum(SIZES.values()) <= CODE_LINES


def test_the_core_has_no_more_lines_of_code_than_its_budget() -> None:
    assert sum(size for path, size in SIZES.items() if path.parts[0] in CORE) <= CORE_LINES


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    lengths = {path: len((ROOT / path).read_text("utf-8").splitlines()) for path in SIZES}
    assert not {path: n for path, n in lengths.items() if n > LONGEST_MODULE}


FORBIDDEN = (
    "turned",
    "chances",
    "sieved",
    "parted",
    "thinned",
    "spelled",
    "united",
    "probed",
    "told",
)


def identifiers() -> Counter[str]:
    found: Counter[str] = Counter()
    for path in PATHS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name.strip("_")] += 1
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found[node.id.strip("_")] += 1
            elif isinstance(node, ast.arg):
                found[node.arg.strip("_")] += 1
    return found


def test_names_are_the_words_of_the_field() -> None:
    assert not set(FORBIDDEN) & set(identifiers())


# Public classes that share a name because they are the same idea for different things.
SHARED_NAMES = {
    "Candidates",
    "Document",
    "Engine",
    "Rows",
    "State",
    "Store",
}


def test_a_public_class_has_its_name_alone() -> None:
    names = Counter(
        node.name
        for path in PATHS
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in names.items() if count > 1} == SHARED_NAMES


COUNT = """
import json, os, sys
from triptych import Encoder, Index, evaluate
from triptych.train.run import run
from triptych.train.settings import Recipe
from transformers.models.xlm_roberta import modeling_xlm_roberta

def count(prepare, run):
    touched, names = set(), dict(globals())
    def profile(frame, event, arg):
        name = frame.f_code.co_filename
        if event == "call" and "triptych" in name and "site-packages" not in name and frame.f_code.co_flags & 1:
            touched.add(name)
    exec(prepare, names)
    sys.setprofile(profile)
    exec(run, names)
    sys.setprofile(None)
    return sorted(touched)

for name, parts in json.load(sys.stdin).items():
    if not os.fork():  # each in a fresh process, that has imported everything
        with open(name + ".json", "w") as file:
            json.dump(count(*parts), file)
        os._exit(0)
    assert os.wait()[1] == 0
"""
ENCODER = "encoder = Encoder.from_pretrained({folder!r}, device='cpu')\n"
PARTS = {
    "encode": (ENCODER, "encoder.encode(['a', 'b'])"),
    "search": (
        ENCODER
        + "index = Index.create('x.index', encoder)\nindex.add(['1', '2'], ['one', 'two'])\nencoder.encode(['a'])",
        "index.search('one', k=1)",
    ),
    "train": (
        "recipe = Recipe.model_validate({{'model': {folder!r}, 'steps': 2, 'compute': {{'device': 'cpu'}},\n"
        "    'data': {{'train': 'pairs.jsonl', 'cache': 'cache', 'batch_size': 4}}}})\n"
        "from pathlib import Path",
        "run('train', recipe, Path('run'))",
    ),
    "evaluate": (ENCODER, "evaluate(encoder, 'beir')"),
}


@pytest.fixture(scope="module")
def touched(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """For each of `PARTS`, our files in which a function ran."""
    place = tmp_path_factory.mktemp("touched")
    rows = "".join(f'{{"query": "a {i}", "pos": ["b {i}"], "neg": ["c", "d"]}}\n' for i in range(8))
    for name, text in (
        ("pairs.jsonl", rows),
        ("beir/corpus.jsonl", '{"_id": "1", "text": "one"}\n{"_id": "2", "text": "two"}\n'),
        ("beir/queries.jsonl", '{"_id": "q", "text": "one"}\n'),
        ("beir/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq\t1\t1\n"),
    ):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    parts = {name: (prepare.format(folder=str(folder)), run) for name, (prepare, run) in PARTS.items()}
    subprocess.run([sys.executable, "-c", COUNT], cwd=place, input=json.dumps(parts), text=True, check=True)
    return {name: set(json.loads((place / f"{name}.json").read_text(encoding="utf-8"))) for name in PARTS}


@pytest.mark.slow
def test_encoding_goes_through_few_files(touched: dict[str, set[str]]) -> None:
    assert len(touched["encode"]) <= 11


@pytest.mark.slow
def test_a_search_goes_through_few_files_beyond_encoding(touched: dict[str, set[str]]) -> None:
    assert len(touched["search"] - touched["encode"]) <= 11


@pytest.mark.slow
def test_training_steps_go_through_few_files(touched: dict[str, set[str]]) -> None:
    assert len(touched["train"]) <= 37


@pytest.mark.slow
def test_an_evaluation_goes_through_few_files(touched: dict[str, set[str]]) -> None:
    assert len(touched["evaluate"]) <= 38
