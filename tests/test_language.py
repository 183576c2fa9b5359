"""Text for people is in plain English: short sentences, and the standard words of the field."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = [ROOT / name for name in ("deconvnet_jax", "docs", "experiments", "launch", "tests", ".github")]
KINDS = {".ipynb", ".md", ".py", ".sh", ".toml", ".yaml", ".yml"}
FILES = [
    path
    for path in sorted([*ROOT.glob("*"), *(path for folder in FOLDERS for path in folder.rglob("*"))])
    if path.suffix in KINDS and path != Path(__file__)
]
DOCUMENTS = [path for path in FILES if path.suffix == ".md"]
LONGEST = 30  # words in a sentence

# Phrases that readers had to decode, and what to write instead.
UNUSUAL = {
    r"so many": "name the number, or 'n batches'",
    r"anew": "again, re-estimated, re-computed",
    r"of (its|their) own": "its, separate",
    r"at hand": "available",
    r"as told": "what the caller gave",
    r"whoever": "name the reader or the caller",
    r"goes on": "resumes, continues",
    r"in vain": "without effect",
    r"one an? (line|image|object|step|host|device)": "one per ...",
    r"(images|crops|boxes|steps|windows|examples) an? (second|image|step|window|device|host)": "per second, per image",
    r"[\d.]+ (s|ms|seconds|GB|MB|MiB) an? (image|step|window|device|host)": "per image",
}


def sentences(document):
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.S)
    for line in text.splitlines():
        if not line.startswith(("#", "![")):
            for part in line.split("|") if line.startswith("|") else [line]:
                yield from re.split(r"(?<=[.!?:;])\s+", part)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_are_short(document):
    long = [sentence for sentence in sentences(document) if len(sentence.split()) > LONGEST]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("phrase", UNUSUAL)
def test_words_are_those_of_the_field(phrase):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(rf"\b{phrase}\b", line, re.I)
    ]
    assert not found, f"write {UNUSUAL[phrase]}:\n" + "\n".join(found)
