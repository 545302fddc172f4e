"""Writes the fixtures of the golden tests: a tiny model, inputs, and what this build makes of them on disk.

Usage: python tests/golden/make_files.py

Only for a format that was changed on purpose, or for a new kind of file. A later build that cannot read the old
fixtures is what the tests are there to find: writing them again hides it.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import zstandard
from transformers import XLMRobertaConfig, XLMRobertaModel

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import checkpoints  # noqa: E402
from readers import samples  # noqa: E402
from triptych import Encoder, Index  # noqa: E402

FILES, INPUTS = HERE / "files", HERE / "inputs"
WIDTH = 16
ENGINES = ("exact", "edge")
QUERIES = ["what is bge m3?", "hello world", "retrieval model of the world"]
DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a", "text": "bge m3 is a model of text", "lang": "en", "year": 2024},
    {"id": "b", "text": "defination of bm25", "lang": "de", "year": 2020},
    {"id": "c", "title": "a text", "text": "hello world", "lang": "fr", "year": 2022},
    {"id": "d", "text": "a retrieval model of the world", "lang": "fr", "year": 2019},
    {"id": "e", "text": "the passage of the query", "lang": "en", "year": 2021},
]
RECIPE = """model: model
data:
  train: [pairs.jsonl]
  cache: cache
  batch_size: 8
  group: 3
optimisation: {lr: 1.0e-3}
compute: {device: cpu, dtype: float32}
evaluation: {data: set, every: 2, metric: lexical}
saving: {every: 2, keep: 1}
steps: 6
log_every: 1
"""


def model(folder: Path) -> Path:
    """A checkpoint of one layer, in the published layout, with a mask for pre-training."""
    tokenizer = checkpoints.xlmr_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1}
    places = {"max_position_embeddings": checkpoints.POSITIONS + 2, "type_vocab_size": 1}
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": 0, "eos_token_id": 2}
    config = XLMRobertaConfig(
        **shape, **places, **ids, vocab_size=len(tokenizer), initializer_range=0.3, dtype="float32"
    )
    encoder = XLMRobertaModel(config, add_pooling_layer=False)
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    lexical, multi = torch.nn.Linear(WIDTH, 1), torch.nn.Linear(WIDTH, WIDTH)
    lexical.bias.data += 0.5
    tokenizer.save_pretrained(folder)
    encoder.eval().save_pretrained(folder)
    torch.save(lexical.state_dict(), folder / "sparse_linear.pt")
    torch.save(multi.state_dict(), folder / "colbert_linear.pt")
    return folder


def lines(path: Path, records: list[dict[str, Any]]) -> None:
    """JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")


def inputs(folder: Path) -> None:
    """Documents, a BEIR folder, training pairs, raw texts, passages of articles."""
    draw = random.Random(0)

    def words(least: int, most: int) -> str:
        return " ".join(draw.choices(checkpoints.WORDS, k=draw.randint(least, most)))

    lines(folder / "corpus.jsonl", DOCUMENTS)
    lines(folder / "set" / "corpus.jsonl", [{"_id": d["id"], "text": d["text"]} for d in DOCUMENTS])
    lines(
        folder / "set" / "queries.jsonl", [{"_id": f"q{i}", "text": text} for i, text in enumerate(QUERIES)]
    )
    (folder / "set" / "qrels").mkdir()
    head = "query-id\tcorpus-id\tscore\n"
    (folder / "set" / "qrels" / "test.tsv").write_text(head + "q0\ta\t1\nq1\tc\t2\n", encoding="utf-8")
    (folder / "set" / "qrels" / "dev.tsv").write_text(head + "q2\td\t1\nq1\tc\t1\n", encoding="utf-8")
    pairs: list[dict[str, Any]] = []
    for number in range(24):
        query = words(1, 4)
        negatives = [words(2, 12), words(2, 12)]
        pairs.append({"query": query, "pos": [f"{query} {number}", f"the {query}"], "neg": negatives})
    lines(folder / "pairs.jsonl", pairs)
    lines(folder / "texts.jsonl", [{"text": words(2, 30)} for _ in range(24)])
    passages: list[dict[str, Any]] = []
    for number in range(60):
        passage: dict[str, Any] = {"id": f"p{draw.randint(0, 10**6):07d}", "text": words(3, 12)}
        passage |= {"article": f"a{number // 4}", "lang": "en" if number % 4 < 2 else "de"}
        passages.append(passage | ({"title": f"hello {number}"} if number % 7 == 0 else {}))
    lines(folder / "passages.jsonl", passages)
    training: list[dict[str, Any]] = []
    for number in range(20):
        answer = draw.choice(passages)
        query = " ".join(draw.sample(answer["text"].split(), 3))
        record: dict[str, Any] = {"id": f"q{number}", "query": query, "pos": [answer["text"]], "neg": []}
        if number % 3 == 0:
            record["pos"].append(f"{query} is the text")
        if number % 4 == 0:
            record["neg"].append("a passage of hello world")
        training.append(record | {"lang": answer["lang"], "source": f"s{number}"})
    lines(folder / "training.jsonl", training)
    lines(folder / "articles.jsonl", articles())
    samples.put(folder / "manual", MANUAL)
    for name, files in LABELLED.items():
        samples.put(folder / "labelled" / name, files)


LABELLED: dict[str, dict[str, Any]] = {
    "beir": samples.BEIR,
    "dpr": {"biencoder-nq-train.json": json.dumps(samples.DPR)},
    "dureader-retrieval": samples.DUREADER,
    "hotpotqa": {"hotpot_train_v1.1.json": json.dumps(samples.HOTPOT)},
    "miracl": samples.MIRACL,
    "mldr": samples.MLDR,
    "mmarco": samples.MMARCO,
    "mrtydi": samples.MRTYDI,
    "msmarco": samples.MSMARCO,
    "natural-questions": {"v1.0-simplified-nq-train.jsonl.gz": samples.NQ},
    "snli": {"snli_1.0_train.jsonl": samples.SNLI},
    "squad": {"train-v2.0.json": json.dumps(samples.SQUAD)},
    "t2ranking": samples.T2RANKING,
    "trec": samples.TREC,
    "triviaqa": samples.TRIVIAQA,
}
MANUAL = {
    "en/pot.md": """# The moka pot

The water is heated in the lower part of the pot, and its steam presses it through the ground coffee above.

## How is it cleaned?

Rinse every part with warm water and dry it well, since the metal turns dull where water is left standing on it.

## Storing

Leave the lid open so that the air can reach the inside. See also [grinding the beans](grind.md) for what comes first.
""",
    "de/pot.md": """# Die Mokkakanne

Das Wasser wird im unteren Teil der Kanne erhitzt, und sein Dampf drückt es durch das gemahlene Kaffeepulver darüber.

## Wie wird sie gereinigt?

Spülen Sie alle Teile mit warmem Wasser und trocknen Sie sie gut ab, da das Metall durch stehendes Wasser matt wird.

## Aufbewahren

Lassen Sie den Deckel offen, damit Luft hineinkommt. Siehe auch [Bohnen mahlen](grind.md) für das, was vorher kommt.
""",
    "en/grind.md": """# Grinding the beans

Beans lose their smell within days once they are ground, and so they are best ground right before brewing the coffee.

## Fine or coarse

A fine powder gives its taste quickly but blocks the filter, while a coarse one needs more time in the hot water.
""",
    "de/grind.md": """# Bohnen mahlen

Gemahlene Bohnen verlieren ihren Duft in wenigen Tagen, und darum mahlt man sie am besten erst kurz vor dem Brühen.

## Fein oder grob

Feines Pulver gibt seinen Geschmack schnell ab, verstopft aber den Filter, grobes braucht mehr Zeit im heißen Wasser.
""",
    "en/cold.html": """<html lang="en"><head><title>Cold brewing</title>
<meta name="description" content="How coffee is made without any heat at all, over night.">
<meta name="keywords" content="cold brew, immersion"></head><body><h1>Cold brewing</h1>
<p>Cold water dissolves less of the bitter parts, so that the coffee tastes milder in the end.</p>
<p>It has to stand for twelve hours or more, best in a glass with a lid, and is strained before one drinks it.</p>
</body></html>
""",
    "articles.jsonl": [
        {
            "id": "bees",
            "title": "How bees dance",
            "lang": "en",
            "description": "What a bee tells the others about flowers that it has found.",
            "keywords": ["bees", "waggle dance"],
            "sections": [
                {
                    "heading": "Why do bees dance?",
                    "text": "A bee that has found flowers shows the others by its dance in which direction they have "
                    "to fly, and how far away the flowers are.",
                },
                {
                    "heading": "The two dances",
                    "paragraphs": [
                        "The round dance is for flowers nearby and says nothing of the direction in which they are.",
                        "The waggle dance is for those that are further away, and its angle is that to the sun.",
                    ],
                },
            ],
        }
    ],
    "copies.jsonl": [
        {"id": "copy", "title": "How bees dance", "lang": "en", "text": "Bees dance."},
        {
            "id": "ferry",
            "title": "The ferry at night",
            "lang": "en",
            "text": "The ferry crosses at ten and again at midnight, unless the wind is too strong for its one engine.",
        },
        {
            "id": "ferry again",
            "title": "The ferry at night",
            "lang": "en",
            "text": "The ferry crosses at ten and again at midnight, unless the wind is too strong for its one engine.",
        },
    ],
    "aligned.tsv": samples.tsv(
        ("en", "de", "fr"),
        (
            "The bridge over the river was built in the year 1502.",
            "Die Brücke über den Fluss wurde im Jahr 1502 gebaut.",
            "Le pont sur la rivière a été construit en l'an 1502.",
        ),
        (
            "Salt was carried down the river on flat boats.",
            "Salz wurde auf flachen Booten den Fluss hinab gebracht.",
            "Le sel descendait la rivière sur des bateaux plats.",
        ),
    ),
}


def articles() -> list[dict[str, Any]]:
    """Long documents about towns, for synthetic questions."""
    texts = (
        "The weavers of {0} kept their guild hall beside the river from the year 1300 onwards, and they paid the "
        "bishop one barrel of herring every winter for the right to use the bridge in {0}.",
        "Later a fire that began in a bakery destroyed forty houses of {0}, among them the workshop in which the "
        "weavers had stored their tools, their ledgers and the silver cup of the guild.",
    )
    towns = ("Arvika", "Bled", "Cieszyn")
    return [
        {"id": town, "title": town, "text": "\n\n".join(texts).format(town), "lang": "en"} for town in towns
    ]


def triptych(*arguments: str) -> None:
    """Runs a command where we are."""
    subprocess.run([sys.executable, "-m", "triptych", *arguments], check=True)


def indexes(encoder: Encoder) -> dict[str, Any]:
    """Makes an index with each engine; gives the hits of each."""
    found: dict[str, Any] = {}
    for engine in ENGINES:
        with Index.create(engine, encoder, engine=engine) as index:  # type: ignore[arg-type]
            metadata = [{"lang": document["lang"], "year": document["year"]} for document in DOCUMENTS]
            ids, texts = [d["id"] for d in DOCUMENTS], [d["text"] for d in DOCUMENTS]
            index.add([*ids, "gone"], [*texts, "to be removed"], [*metadata, None])
            index.delete(["gone"])
        with Index.open(engine, encoder) as index:
            found[engine] = [
                [{"id": hit.id, "score": hit.score, "scores": dict(hit.scores)} for hit in hits]
                for hits in index.search(QUERIES, 5)
            ]
    return found


def packed(folder: Path, target: Path) -> None:
    """A .tar.zst without owners and times: an index of the edge engine has large files of zeros."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            info = archive.gettarinfo(path, path.relative_to(folder.parent).as_posix())
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            with path.open("rb") if path.is_file() else BytesIO() as file:
                archive.addfile(info, file if path.is_file() else None)
    target.write_bytes(zstandard.ZstdCompressor(19).compress(buffer.getvalue()))


def stopped_run(files: Path) -> None:
    """A whole run, and one that is as if it had been stopped after the fourth of its six steps."""
    Path("recipe.yaml").write_text(RECIPE, encoding="utf-8")
    triptych("train", "recipe.yaml", "--output", "run", "--set", "saving.keep=3")
    whole = [json.loads(line) for line in Path("run/log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = {str(record["step"]): record["loss"] for record in whole if "loss" in record}
    evaluations = {str(record["step"]): record["evaluation"] for record in whole if "evaluation" in record}
    run = files / "run"
    shutil.copytree("run/checkpoints/step-00000004", run / "checkpoints" / "step-00000004")
    (run / "checkpoints" / "latest").write_text("step-00000004", encoding="utf-8")
    shutil.copy("run/recipe.yaml", run / "recipe.yaml")
    kept = [json.dumps(record) + "\n" for record in whole if record["step"] <= 4]
    (run / "log.jsonl").write_text("".join(kept), encoding="utf-8")
    text = json.dumps({"losses": losses, "evaluations": evaluations}, indent=1) + "\n"
    (files / "run-curve.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Writes all, by relative paths, so that no file names a place of this machine."""
    for folder in (FILES, INPUTS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    os.environ |= {"TRIPTYCH_CACHE": "cache", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    model(FILES / "model")
    inputs(INPUTS)
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(FILES / "model", Path(name, "model"))
        shutil.copytree(INPUTS, name, dirs_exist_ok=True)
        os.chdir(name)
        encoder = Encoder.from_pretrained("model", device="cpu", dtype="float32")
        hits = json.dumps(indexes(encoder), indent=1) + "\n"
        (FILES / "hits.json").write_text(hits, encoding="utf-8")
        for engine in ENGINES:
            packed(Path(engine), FILES / f"{engine}.tar.zst")
        place = ["--device", "cpu", "--dtype", "float32", "--model", "model"]
        triptych("encode", "corpus.jsonl", "--into", "stream", "--block", "2", *place)
        facts = json.loads(Path("stream/encoded.json").read_text(encoding="utf-8"))
        facts["model"] = "model"
        Path("stream/encoded.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        shutil.copytree("stream", FILES / "stream")
        stopped_run(FILES)
        os.chdir(HERE)


if __name__ == "__main__":
    main()
