"""Small files in the published formats, with sentences of our own."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def put(folder: Path, files: Mapping[str, Any]) -> Path:
    """Writes files below a folder: text as it is, lists as JSON Lines; names that end in .gz are compressed."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (
            content
            if isinstance(content, str)
            else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        )
        data = text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def tsv(*rows: tuple[Any, ...]) -> str:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


MSMARCO = {
    "collection.tsv": tsv(
        (10, "Tea is picked by hand."), (11, "Kettles whistle."), (12, "Rain fell."), (13, "Rice.")
    ),
    "queries.train.tsv": tsv((1, "how is tea picked"), (2, "what whistles"), (3, "nobody judged this")),
    "qrels.train.tsv": tsv((1, 0, 10, 1), (2, 0, 11, 1), (9, 0, 12, 1)),
    "qidpidtriples.train.full.2.tsv": tsv((1, 10, 12), (1, 10, 13), (2, 11, 13), (2, 11, 11)),
}
MSMARCO_JSON = [
    {
        "query_id": 19699,
        "query_type": "description",
        "query": "what is a moka pot",
        "answers": ["A coffee maker."],
        "passages": [
            {"is_selected": 1, "url": "http://a", "passage_text": "A moka pot is a coffee maker."},
            {"is_selected": 0, "url": "http://b", "passage_text": "Pots hold soup."},
        ],
    },
    {
        "query_id": 19700,
        "query_type": "entity",
        "query": "unanswered",
        "answers": ["No Answer Present."],
        "passages": [{"is_selected": 0, "url": "http://c", "passage_text": "Nothing."}],
    },
]


def columns(rows: list[dict[str, Any]]) -> str:
    """MS MARCO v2.1: one object of columns of numbered rows."""
    return json.dumps({name: {str(i): row[name] for i, row in enumerate(rows)} for name in sorted(rows[0])})


PAGE = (
    "<H1> Otter </H1> <P> The otter ( a mammal ) eats fish . </P> <P> It sleeps in a holt near the water . </P> "
    "<P> Short . </P>"
)
NQ = [
    {
        "document_text": PAGE,
        "question_text": "what does the otter eat",
        "long_answer_candidates": [
            {"start_token": 3, "end_token": 14, "top_level": True},
            {"start_token": 14, "end_token": 25, "top_level": True},
            {"start_token": 25, "end_token": 29, "top_level": True},
        ],
        "annotations": [
            {
                "yes_no_answer": "NONE",
                "long_answer": {"start_token": 3, "candidate_index": 0, "end_token": 14},
                "short_answers": [{"start_token": 11, "end_token": 12}],
                "annotation_id": 1,
            }
        ],
        "document_url": "https://en.wikipedia.org//w/index.php?title=Sea_otter&amp;oldid=1",
        "example_id": 5655493461695504401,
    },
    {
        "document_text": "<P> Nothing . </P>",
        "question_text": "who knows",
        "long_answer_candidates": [],
        "annotations": [
            {
                "yes_no_answer": "NONE",
                "long_answer": {"start_token": -1, "candidate_index": -1, "end_token": -1},
                "short_answers": [],
                "annotation_id": 2,
            }
        ],
        "document_url": "https://en.wikipedia.org//w/index.php?title=X&amp;oldid=1",
        "example_id": 2,
    },
]
DPR = [
    {
        "dataset": "nq_train_psgs_w100",
        "question": "who built the mill",
        "answers": ["Ada"],
        "positive_ctxs": [
            {"title": "Mill", "text": "Ada built it.", "score": 1000, "title_score": 1, "passage_id": "7"}
        ],
        "negative_ctxs": [
            {"title": "Cat", "text": "Cats sleep.", "score": 0, "title_score": 0, "passage_id": "8"}
        ],
        "hard_negative_ctxs": [
            {"title": "Mills", "text": "Mills grind.", "score": 9, "title_score": 0, "psg_id": "9"}
        ],
    },
    {"question": "no one", "answers": [], "positive_ctxs": [], "negative_ctxs": [], "hard_negative_ctxs": []},
]
TRIVIAQA = {
    "qa/wikipedia-train.json": json.dumps(
        {
            "Data": [
                {
                    "Answer": {
                        "Aliases": ["The Red Fox", "red fox"],
                        "NormalizedAliases": ["red fox"],
                        "Value": "Red Fox",
                    },
                    "EntityPages": [
                        {"DocSource": "TagMe", "Filename": "Fox.txt", "Title": "Fox"},
                        {"DocSource": "TagMe", "Filename": "Owl.txt", "Title": "Owl"},
                        {"DocSource": "TagMe", "Filename": "Gone.txt", "Title": "Gone"},
                    ],
                    "Question": "Which animal is called Reynard?",
                    "QuestionId": "tc_1",
                    "QuestionSource": "http://quiz",
                    "SearchResults": [
                        {"Filename": "1/1_2.txt", "Title": "Reynard", "Rank": 0, "Url": "http://x"}
                    ],
                }
            ],
            "Domain": "Wikipedia",
            "Split": "train",
            "VerifiedEval": False,
            "Version": 1.0,
        },
        indent=4,
    ),
    "evidence/wikipedia/Fox.txt": "Fox\n\nReynard is a red-fox.\n",
    "evidence/wikipedia/Owl.txt": "Owls are no foxes, though red foxglove grows.\n",
    "evidence/web/1/1_2.txt": "The RED FOX of the tales is Reynard.",
}
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Salt_mine",
            "paragraphs": [
                {
                    "context": "The mine is 300 metres deep.",
                    "qas": [
                        {
                            "id": "s1",
                            "question": "How deep is the mine?",
                            "answers": [
                                {"text": "300 metres", "answer_start": 12},
                                {"text": "300 metres", "answer_start": 12},
                            ],
                            "is_impossible": False,
                        },
                        {
                            "id": "s2",
                            "question": "Who owns the mine?",
                            "answers": [],
                            "is_impossible": True,
                            "plausible_answers": [{"text": "The mine", "answer_start": 0}],
                        },
                    ],
                },
                {"context": "Salt was carried down the river.", "qas": []},
                {"context": "At 300 METRES it is warm.", "qas": []},
            ],
        }
    ],
}
HOTPOT = [
    {
        "_id": "h1",
        "question": "In which town was the maker of the blue clock born?",
        "answer": "Ulm",
        "supporting_facts": [["Blue clock", 0], ["Ines Vogt", 1]],
        "context": [
            ["Blue clock", ["It was made by Ines Vogt.", " It still runs."]],
            ["Red clock", ["It stands still."]],
            ["Ines Vogt", ["She made clocks.", " She was born in Ulm."]],
        ],
        "type": "bridge",
        "level": "easy",
    }
]
SNLI = [
    {"gold_label": label, "sentence1": first, "sentence2": second, "pairID": f"p{i}", "captionID": "c"}
    for i, (label, first, second) in enumerate(
        [
            ("neutral", "A dog runs.", "The dog is late."),
            ("entailment", "A dog runs.", "An animal moves."),
            ("-", "A boy sings.", "A child hums."),
            ("contradiction", "A boy sings.", "The boy is silent."),
            ("contradiction", "A dog runs.", "The dog sleeps."),
            ("entailment", "A dog runs.", "A dog is running."),
        ]
    )
]
DUREADER = {
    "train/dual.train.tsv": tsv(
        ("怎么煮米饭", "", "先把米洗干净。", "", "面条要煮十分钟。", ""),
        ("怎么煮米饭", "", "加水后煮二十分钟。", "", "今天下雨。", ""),
        ("猫吃什么", "", "猫吃鱼。", "", "狗吃骨头。", ""),
    ),
    "train/cross.train.tsv": tsv(("猫吃什么", "", "猫吃鱼。", 1), ("猫吃什么", "", "狗吃骨头。", 0)),
    "dev/dev.json": [
        {
            "question_id": "q1",
            "question": "河有多长",
            "answer_paragraphs": [{"paragraph_id": "p1", "paragraph_text": "这条河长九百公里。"}],
        },
        {"question_id": "q2", "question": "没有答案", "answer_paragraphs": []},
    ],
}
T2RANKING = {
    "collection.tsv": tsv(
        ("pid", "text"), (0, "山很高。"), (1, "水很深。"), (2, "风很大。"), (3, "雪很白。")
    ),
    "queries.train.tsv": tsv(("qid", "text"), (5, "山高吗"), (6, "水深吗")),
    "qrels.train.tsv": tsv(("qid", "-", "pid", "rel"), (5, 0, 0, 3), (5, 0, 1, 1), (6, 0, 1, 1)),
    "qrels.retrieval.train.tsv": tsv(("qid", "pid"), (5, 0)),
    "train.mined.tsv": tsv(("qid", "pid", "index", "score"), (5, 2, 1, 9.5), (5, 0, 2, 9.1)),
}
MMARCO = {
    "collections/german_collection.tsv": tsv((10, "Tee wird gepflückt."), (11, "Regen fiel.")),
    "collections/french_collection.tsv": tsv((10, "Le thé est cueilli."), (11, "La pluie tomba.")),
    "queries/train/german_queries.train.tsv": tsv((1, "wie wird tee geerntet")),
    "queries/train/french_queries.train.tsv": tsv((1, "comment cueille-t-on le thé")),
    "triples.train.ids.small.tsv": tsv((1, 10, 11)),
}
MRTYDI = {
    "mrtydi-v1.1-finnish/topic.train.tsv": tsv((0, "Mikä on sauna?")),
    "mrtydi-v1.1-finnish/qrels.train.txt": "0 Q0 5#0 1\n",
    "mrtydi-v1.1-finnish/collection/docs.jsonl.gz": [
        {"id": "5#0", "contents": "Sauna\n\nSauna on kuuma huone."},
        {"id": "5#1", "contents": "Sauna\n\nLöyly on höyryä."},
    ],
}
LISTS = [
    {
        "query_id": "1",
        "query": "What is a holt?",
        "positive_passages": [{"docid": "3#0", "title": "Holt", "text": "A holt is an otter's den."}],
        "negative_passages": [
            {"docid": "4#0", "title": "Hold", "text": "A ship has a hold."},
            {"docid": "4#1", "title": "Hold", "text": "Cargo lies in it."},
        ],
    }
]
MIRACL = {
    f"miracl-v1.0-{lang}/{name}": content
    for lang, (query, good, bad) in {
        "sw": ("Simba ni nini?", "Simba ni mnyama.", "Mvua inanyesha."),
        "fi": ("Mikä on leijona?", "Leijona on eläin.", "Sataa vettä."),
    }.items()
    for name, content in {
        f"topics/topics.miracl-v1.0-{lang}-dev.tsv": tsv(("7", query)),
        f"qrels/qrels.miracl-v1.0-{lang}-dev.tsv": tsv((7, "Q0", "12#0", 1), (7, "Q0", "12#1", 0)),
        f"miracl-corpus-v1.0-{lang}/docs-0.jsonl.gz": [{"docid": "12#0", "title": "T", "text": good}],
        f"miracl-corpus-v1.0-{lang}/docs-1.jsonl.gz": [{"docid": "12#1", "title": "T", "text": bad}],
    }.items()
}
MLDR = {
    "mldr-v1.0-it/train.jsonl.gz": [
        {
            "query_id": "q-it-1",
            "query": "Quando fu costruito il ponte?",
            "positive_passages": [{"docid": "doc-it-1", "text": "Il ponte fu costruito nel 1502. " * 40}],
            "negative_passages": [{"docid": "doc-it-2", "text": "La torre è alta. " * 40}],
        }
    ],
    "mldr-v1.0-it/corpus.jsonl.gz": [
        {"docid": "doc-it-1", "text": "Il ponte fu costruito nel 1502. " * 40},
        {"docid": "doc-it-2", "text": "La torre è alta. " * 40},
    ],
}
BEIR = {
    "corpus.jsonl": [
        {"_id": "d1", "title": "Bees", "text": "Bees dance."},
        {"_id": "d2", "title": "", "text": "Ants dig."},
    ],
    "queries.jsonl": [{"_id": "q1", "text": "what dances"}, {"_id": "q2", "text": "what flies"}],
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t0\n",
}
TREC = {
    "topics.301-302.txt": """<top>
<num> Number: 301
<title> Salt &amp; pepper

<desc> Description:
Documents on how
salt is mined.

<narr> Narrative:
Anything else is not relevant.
</top>

<top>
<num> Number: 302
<title> Lost bells
<desc> Description:
Bells that were lost.
</top>
""",
    "qrels.301-302.txt": "301 0 FT-1 1\n301 0 FT-2 0\n302 0 FT-9 1\n",
    "docs/ft1": """<DOC>
<DOCNO> FT-1 </DOCNO>
<HEADLINE>
Old mines
</HEADLINE>
<TEXT>
<P>
Salt is mined &amp; washed.
</P>
<P>Then it is dried.</P>
</TEXT>
</DOC>
<DOC>
<DOCNO>FT-2</DOCNO>
<TEXT>Pepper grows.</TEXT>
</DOC>
""",
}
