"""The size of the package is a budget: raise a number only in a commit that says why."""

import ast
import io
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
CODE_LINES = 34_950
CORE_LINES = 11_150
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
    "Dataset",
    "Document",
    "Engine",
    "Group",
    "PairRow",
    "Passage",
    "Rows",
    "Source",
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
    assert {name for name, count in names.items() if count > 1} <= SHARED_NAMES


COUNT = """
import sys, threading
touched = set()
def profile(frame, event, arg):
    if event == "call":
        name = frame.f_code.co_filename
        if "triptych" in name and "site-packages" not in name:
            touched.add(name)
{prepare}
sys.setprofile(profile)
{run}
sys.setprofile(None)
print(len(touched), *sorted(touched), sep="\\n")
"""


def files_touched(prepare: str, run: str, cwd: Path) -> list[str]:
    """Our files in which a function ran between two points."""
    code = COUNT.format(prepare=prepare, run=run)
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[1:]


ENCODER = "from triptych import Encoder, Index\nencoder = Encoder.from_pretrained({folder!r}, device='cpu')\n"


@pytest.mark.slow
def test_encoding_goes_through_few_files(folder: Path, tmp_path: Path) -> None:
    touched = files_touched(ENCODER.format(folder=str(folder)), "encoder.encode(['a', 'b'])", tmp_path)
    assert len(touched) <= 9, touched


@pytest.mark.slow
def test_a_search_goes_through_few_files(folder: Path, tmp_path: Path) -> None:
    prepare = (
        ENCODER.format(folder=str(folder))
        + "index = Index.create('x.index', encoder)\nindex.add(['1', '2'], ['one', 'two'])\n"
        "encoder.encode(['a'])\n"
    )
    alone = set(files_touched(ENCODER.format(folder=str(folder)), "encoder.encode(['a', 'b'])", tmp_path))
    touched = files_touched(prepare, "index.search('one', k=1)", tmp_path)
    assert len(set(touched) - alone) <= 10, touched


@pytest.mark.slow
def test_training_steps_go_through_few_files(folder: Path, tmp_path: Path) -> None:
    rows = "".join(f'{{"query": "a {i}", "pos": ["b {i}"], "neg": ["c", "d"]}}\n' for i in range(8))
    (tmp_path / "pairs.jsonl").write_text(rows, encoding="utf-8")
    prepare = (
        "from pathlib import Path\nfrom triptych.train.run import run\n"
        "from triptych.train.settings import Recipe\n"
        f"recipe = Recipe.model_validate({{'model': {str(folder)!r}, 'steps': 2, 'compute': {{'device': 'cpu'}},\n"
        "    'data': {'train': 'pairs.jsonl', 'cache': 'cache', 'batch_size': 4}})\n"
    )
    touched = files_touched(prepare, "run('train', recipe, Path('run'))", tmp_path)
    assert len(touched) <= 37, touched


@pytest.mark.slow
def test_an_evaluation_goes_through_few_files(folder: Path, tmp_path: Path) -> None:
    for name, text in (
        ("corpus.jsonl", '{"_id": "1", "text": "one"}\n{"_id": "2", "text": "two"}\n'),
        ("queries.jsonl", '{"_id": "q", "text": "one"}\n'),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq\t1\t1\n"),
    ):
        (tmp_path / "beir" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "beir" / name).write_text(text, encoding="utf-8")
    prepare = ENCODER.format(folder=str(folder)) + "from triptych import evaluate\n"
    touched = files_touched(prepare, "evaluate(encoder, 'beir')", tmp_path)
    assert len(touched) <= 36, touched
