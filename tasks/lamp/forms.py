"""The shapes of the LaMP datasets: one table row per dataset, read by the loader, the prompts and the scorers.

What differs between the eight tasks is data, not code: file names, entry fields, the fixed wording of inputs, label
lists and the benchmark's own prompt.  Everything here follows the published file format (arXiv 2304.11406).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from personabench.types import Record, Sample

TAGS = (
    *(
        "sci-fi",
        "based on a book",
        "comedy",
        "action",
        "twist ending",
        "dystopia",
        "dark comedy",
        "classic",
    ),
    *(
        "psychology",
        "fantasy",
        "romance",
        "thought-provoking",
        "social commentary",
        "violence",
        "true story",
    ),
)
CATEGORIES = (
    *("food & drink", "sports", "education", "parents", "religion", "travel", "business", "crime"),
    *(
        "science & technology",
        "culture & arts",
        "entertainment",
        "politics",
        "women",
        "style & beauty",
    ),
    "healthy living",
)


@dataclass(frozen=True, slots=True)
class Form:
    """One dataset's format.

    Attributes:
        official: the name in output files; folder: where it lies below the root of the official tree.
        fields: an entry's fields besides `id` and `date`; `stimulus`, `response` and `document` say which of them, in
            order, make a record's parts and its retrieval text.
        wording: the fixed words of an input before the query; marker: what the query follows (empty: LaMP-1).
        labels: the full label list, empty for free text; foreign: a mark that tells another dataset's inputs.
        entry: the official prompt's text for one entry; long: the field of it that may be cut; bridge: the words
            between the joined entries and the input; charged: those of them the length budget counts separately.
    """

    official: str
    folder: str
    fields: tuple[str, ...]
    stimulus: tuple[str, ...]
    response: tuple[str, ...]
    document: tuple[str, ...]
    wording: str
    marker: str
    entry: str
    long: str
    bridge: str = ". "
    charged: str = ""
    labels: tuple[str, ...] = ()
    foreign: tuple[str, str] | None = None

    def query(self, text: str) -> str | None:
        """The query part of an input, stripped; None when the input lacks the fixed wording."""
        if not self.marker:
            return references_of(text)
        _, mark, rest = text.partition(self.marker)
        return rest.strip() if mark else None

    def question(self, stimulus: str, like: str) -> str:
        """A stimulus in the wording of the input `like`, or in the official wording where `like` has none."""
        head, mark, _ = like.partition(self.marker)
        return f"{head}{mark} {stimulus}" if mark else f"{self.wording} {stimulus}"

    def record(self, entry_id: str, fields: Mapping[str, str], date: str | None) -> Record:
        """A profile entry as a record."""
        return Record(
            id=entry_id,
            stimulus=" ".join(fields[name] for name in self.stimulus) if self.stimulus else None,
            response="\n".join(fields[name] for name in self.response),
            time=date,
            fields=fields,
        )


_CITATION = re.compile(
    r'title "(.*?)", which reference.*?\[1\]: "(.*?)" \[2\]: "(.*)"\s*\Z', re.DOTALL
)


def candidates_of(text: str) -> tuple[str, str] | None:
    """The two candidate titles of a LaMP-1 input, found by its fixed marks; None when a mark is missing."""
    found = _CITATION.search(text)
    return (found[2], found[3]) if found else None


def references_of(text: str) -> str | None:
    """The retrieval query of a LaMP-1 input: both candidate titles, joined by a space."""
    pair = candidates_of(text)
    return " ".join(pair).strip() if pair else None


def query_of(form: Form, sample: Sample) -> str:
    """What a sample's history is searched with: the query part, or the whole input when it cannot be told apart."""
    query = form.query(sample.input)
    return sample.input if query is None else query


FORMS: dict[str, Form] = {
    "lamp1": Form(
        official="LaMP_1",
        folder="LaMP_1",
        fields=("title", "abstract"),
        stimulus=(),
        response=("title", "abstract"),
        document=("title", "abstract"),
        wording='For an author who has written the paper with the title "',
        marker="",
        entry='"{title}"',
        long="title",
        labels=("[1]", "[2]"),
    ),
    "lamp2m": Form(
        official="LaMP_2",
        folder="LaMP_2/new",
        fields=("tag", "description"),
        stimulus=("description",),
        response=("tag",),
        document=("description",),
        wording="Which tag does this movie relate to among the following tags? Just answer with the tag name without "
        f"further explanation. tags: [{', '.join(TAGS)}] description:",
        marker="description:",
        entry='the tag for the movie: "{description}" is "{tag}" ',
        long="description",
        labels=TAGS,
        foreign=("categories: [", "lamp2n"),
    ),
    "lamp2n": Form(
        official="LaMP_2",
        folder="LaMP_2",
        fields=("title", "text", "category"),
        stimulus=("text",),
        response=("category",),
        document=("title", "text"),
        wording="Which category does this article relate to among the following categories? Just answer with the "
        f"category name without further explanation. categories: [{', '.join(CATEGORIES)}] article:",
        marker="article:",
        entry='the category for the article: "{text}" is "{category}" ',
        long="text",
        labels=CATEGORIES,
        foreign=("tags: [", "lamp2m"),
    ),
    "lamp3": Form(
        official="LaMP_3",
        folder="LaMP_3",
        fields=("text", "score"),
        stimulus=("text",),
        response=("score",),
        document=("text",),
        wording="What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, 3, 4, or 5 "
        "without further explanation. review:",
        marker="review:",
        entry='{score} is the score for "{text}" ',
        long="text",
        labels=("1", "2", "3", "4", "5"),
    ),
    "lamp4": Form(
        official="LaMP_4",
        folder="LaMP_4",
        fields=("title", "text"),
        stimulus=("text",),
        response=("title",),
        document=("title", "text"),
        wording="Generate a headline for the following article:",
        marker="article:",
        entry='"{title}" is the title for "{text}" ',
        long="text",
    ),
    "lamp5": Form(
        official="LaMP_5",
        folder="LaMP_5",
        fields=("title", "abstract"),
        stimulus=("abstract",),
        response=("title",),
        document=("title", "abstract"),
        wording="Generate a title for the following abstract of a paper:",
        marker="paper:",
        entry='"{title}" is a title for "{abstract}" ',
        long="abstract",
        bridge=". Following the given patterns ",
        charged="Following the given patterns",
    ),
    "lamp6": Form(
        official="LaMP_6",
        folder="LaMP_6",
        fields=("title", "text"),
        stimulus=("text",),
        response=("title",),
        document=("text",),
        wording="Generate a subject for the following email:",
        marker=":",
        entry='"{title}" is the title for "{text}" ',
        long="text",
    ),
    "lamp7": Form(
        official="LaMP_7",
        folder="LaMP_7",
        fields=("text",),
        stimulus=(),
        response=("text",),
        document=("text",),
        wording="Paraphrase the following tweet without any explanation before or after it:",
        marker=":",
        entry='"{text}" ',
        long="text",
        bridge=" are written by a person. Following the given patterns ",
        charged="are written by a person. Following the given patterns",
    ),
}
