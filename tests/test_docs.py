"""The code of the pages and the examples run; links lead somewhere; the tables name what exists."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
import zstandard
from typer.testing import CliRunner

from triptych import Encoder, Index, errors
from triptych.cli.app import Data, Main, app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
# A page's blocks of code run in order, as a reader would run them; the reason why one does not stands before it.
BLOCK = re.compile(r"(?:<!-- not run: (.+?) -->\n)?^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
WRITTEN = ("adr", "history")  # decisions and history say what was, not what is
READ = [page for page in PAGES if page.parent.name not in WRITTEN and page.name != "cli.md"]
SHELLS = ("bash", "sh", "console")
ENDLESS = ("serve", "mcp")


class Block(NamedTuple):
    """A block of code: why it is not run, its language, itself."""

    reason: str
    language: str
    code: str


def blocks(page: Path, *languages: str) -> list[Block]:
    found = [Block(*each) for each in BLOCK.findall(page.read_text("utf-8"))]
    return [each for each in found if each.language in languages]


def pages_with(*languages: str, run: bool = False) -> list[Any]:
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)))
        for page in READ
        if any(not (run and block.reason) for block in blocks(page, *languages))
    ]


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Every block gets the same bundled model: loading it is most of what a block would take."""
    load = cache(Encoder.from_pretrained)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "from_pretrained", lambda name, **options: load(str(name), **options))
        yield


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages take to be there: notes, records, queries, a data set."""
    notes = {
        "notes/volcanoes.md": "# Volcanoes\n\n## Etna\n\nEtna is an active volcano. It erupts nearly every year.\n",
        "notes/coffee.html": "<h1>Coffee</h1><p>A moka pot brews coffee by steam pressure.</p>",
        "queries.txt": "which volcano is active?\nmoka pot\n",
        "corpus.jsonl": '{"id": "tea", "text": "Tea is steeped."}\n{"id": "rain", "text": "Rain fell."}\n',
        "my-set/corpus.jsonl": '{"_id": "tea", "text": "Tea is steeped."}\n{"_id": "rain", "text": "Rain fell."}\n',
        "my-set/queries.jsonl": '{"_id": "q", "text": "how is tea made?"}\n',
        "my-set/qrels/test.tsv": "query-id\tcorpus-id\tscore\nq\ttea\t1\n",
    }
    for name, text in notes.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    records = b'{"id": "a1", "text": "How to boil an egg.", "lang": "fr", "year": 2020}\n'
    (tmp_path / "articles.jsonl.zst").write_bytes(zstandard.compress(records))
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "finetune.jsonl", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", pages_with("python", run=True))
def test_the_python_of_a_page_runs(
    page: Path, place: Path, small: None, capsys: pytest.CaptureFixture[str]
) -> None:
    own = page.name == "README.md"  # its blocks stand alone
    names: dict[str, Any] = {"__name__": "page"}
    if "my.index" in page.read_text("utf-8") and not own:
        with Index.create("my.index", Encoder.from_pretrained("small")) as index:
            index.add(["coffee"], ["A moka pot brews coffee."], [{"lang": "en"}])
    for number, block in enumerate(blocks(page, "python"), start=1):
        if not block.reason:
            code = compile(block.code, f"{page.name}, block {number}", "exec")
            exec(code, {"__name__": "page"} if own else names)
            if own:
                assert capsys.readouterr().out


@pytest.mark.parametrize("page", pages_with("python"))
def test_what_python_imports_on_a_page_is_there_though_it_is_not_run(page: Path) -> None:
    for block in blocks(page, "python"):
        if block.reason:
            imports = [
                node for node in ast.parse(block.code).body if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            exec(compile(ast.Module(imports, []), page.name, "exec"), {})


def test_the_index_of_decisions_has_the_title_of_each() -> None:
    adr = ROOT / "docs" / "adr"
    titles = {path.name: path.read_text("utf-8").partition("\n")[0] for path in adr.glob("0*.md")}
    listed = re.findall(
        r"^\| (\d+) \| \[(.+)\]\((.+)\) \|$", (adr / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert [(name, f"# {number}. {title}") for number, title, name in listed] == sorted(titles.items())


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block: what comes before a pipe, and the words."""
    text = re.sub(r"\\\n\s*", "", block.code).replace("$ ", "")
    for line in text.splitlines():
        for part in line.split(" && ") if not line.startswith("#") else ():
            before, _, command = part.rpartition(" | ")
            if words := shlex.split(command, comments=True):
                yield before, words


def parsed(words: list[str]) -> None:
    """The command line takes the words; nothing is run."""
    name, *rest = words
    if name == "data":
        name, *rest = rest
        command: Any = Data.table[name].build(name)
    else:
        command = Main.table[name].build(name)
    command.make_context(name, rest)


@pytest.mark.parametrize("page", pages_with(*SHELLS))
def test_the_commands_of_a_page_run_or_are_taken_by_the_command_line(
    page: Path, place: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPTYCH_MODEL", str(folder))
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for block in blocks(page, *SHELLS):
        for before, words in commands(block):
            if words[0] == "make":
                assert set(words[1:]) <= set(targets)
            if words[0] not in ("triptych", "torchrun", "srun"):
                continue  # programs of others
            program = words[words.index("triptych") + 1 :]
            parsed(program)
            if not (block.reason or program[0] in ENDLESS or "--watch" in program):
                stdin = (place / before.removeprefix("cat ")).read_text("utf-8") if before else ""
                done = CliRunner().invoke(app, program, input=stdin)
                assert done.exit_code == 0, (words, done.output)
                assert done.output


def test_the_site_runs_most_of_its_code_and_says_why_it_does_not_run_the_rest() -> None:
    found = [block for page in READ for block in blocks(page, "python", *SHELLS)]
    assert sum(not block.reason for block in found) >= 25
    assert all(len(block.reason) >= 10 for block in found if block.reason)
    kinds = {block[1] for page in READ for block in map(Block._make, BLOCK.findall(page.read_text("utf-8")))}
    assert kinds <= {"python", *SHELLS, "json", "yaml", "text", ""}


@pytest.mark.parametrize("page", pages_with("json"))
def test_the_json_of_a_page_can_be_read(page: Path) -> None:
    for block in blocks(page, "json"):
        rest = block.code.strip()
        while rest:  # one value, or several after each other
            _, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].strip()


def test_the_job_for_kubernetes_fits_its_schema(tmp_path: Path) -> None:
    [block] = blocks(ROOT / "docs" / "reproduce.md", "yaml")
    (tmp_path / "job.yaml").write_text(block.code, encoding="utf-8")
    program = Path(sys.executable).parent / "kubernetes-validate"
    if not program.is_file():
        pytest.skip("kubernetes-validate is not installed")
    command = [program, "--strict", "--no-warn", tmp_path / "job.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    words = yaml.safe_load_all(block.code)
    [job] = [each for each in words if each["kind"] == "Job"]
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    parsed(command[command.index("triptych") + 1 :])


def test_every_extra_has_a_line_on_the_page_of_releases() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    former = {"data", "server"}  # names until 0.2
    table = re.findall(
        r"^\| (`.+`) \| [^|]+ \|$", (ROOT / "docs" / "releases.md").read_text("utf-8"), re.MULTILINE
    )
    assert set(re.findall(r"`([\w-]+)`", " ".join(table))) == set(project["optional-dependencies"]) - former


def test_every_class_of_errors_has_a_line_under_troubleshooting() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    lines = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE))
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert set(lines) == classes


def test_the_api_pages_name_what_is_there() -> None:
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        for name in re.findall(r"^::: ([\w.]+)$", page.read_text("utf-8"), re.MULTILINE):
            module, _, last = name.rpartition(".")
            if find_spec(name) if not last[0].isupper() else hasattr(import_module(module), last):
                continue
            raise AssertionError(f"{page.name}: {name}")


def test_every_page_is_on_the_site() -> None:
    listed = re.findall(r"([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    written = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    outside = {"architecture.md", "contributing.md", "changelog.md"}
    assert {*listed} - outside - {"adr/0*.md", "0*.md"} == {
        name for name in written if not re.match(r"adr/\d", name)
    }


def test_pictures_are_drawn_of_committed_results(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; sys.path[0] = sys.argv[1]; import pictures, pathlib; "]
    program[-1] += "pictures.main(['training', 'speed', 'quality'], pathlib.Path(sys.argv[2]))"
    subprocess.run([*program, str(ROOT / "docs"), str(tmp_path)], check=True)
    for name in ("training", "speed", "quality"):
        drawn, kept = (
            (place / f"{name}.svg").read_text("utf-8") for place in (tmp_path, ROOT / "docs" / "pictures")
        )
        assert re.findall(r"<text[^>]*>([^<]+)", drawn) == re.findall(r"<text[^>]*>([^<]+)", kept), name


@pytest.mark.parametrize("name", ["search", "rerank"])
def test_an_example_runs(name: str, folder: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_example_of_a_stream_resumes(folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "x.jsonl"
    corpus.write_text(
        "".join(f'{{"id": "{i}", "text": "hello world"}}\n' for i in range(300)), encoding="utf-8"
    )
    command = [
        sys.executable,
        str(ROOT / "examples" / "encode_stream.py"),
        str(corpus),
        str(tmp_path / "out"),
    ]
    runs = [
        subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert runs[0].splitlines()[-1].startswith("300 texts")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        if not re.match(r"\w+:", target):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_map_of_files_names_what_exists() -> None:
    text = (ROOT / "README.md").read_text("utf-8").split("## Map of the files")[1].split("\n## ")[0]
    for line in text.splitlines():
        first, *others = re.findall(r"`([^`]+)`", line.split("|")[1]) if line.startswith("| `") else [""]
        parent = (ROOT / first).parent
        for name in (first, *others):
            assert (ROOT / name).exists() or (parent / name).exists(), name


def test_the_table_of_the_paper_names_code_and_tests_that_exist() -> None:
    text = (ROOT / "docs" / "paper-code-test.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) >= 10
    for path, name in re.findall(r"`((?:src|tests)?/?[\w/]+\.py)(?:::(\w+))?`", text):
        file = ROOT / path if path.startswith("tests/") else ROOT / "src" / "triptych" / path
        assert file.is_file(), path
        if name:
            source = file.read_text("utf-8")
            assert re.search(rf"\b(def|class) {name}\b|^{name}\b", source, re.MULTILINE), f"{path}::{name}"
