"""Dataset formats of LaMP: one `Form` per dataset for loader, prompts, scorers and download.

The eight tasks differ in data rather than code: file names, entry fields, the fixed wording of
inputs, label lists and the benchmark's own prompt. Everything here follows the published file
format (arXiv 2304.11406).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from personabench.errors import UsageError
from personabench.types import Record, Sample

SEPARATIONS = ("user", "time")
SPLITS = ("train", "dev", "test")
# The order of both label lists is the benchmark's own: official inputs print it, and macro-F1 is
# computed over the full list.
TAGS = (
    "sci-fi",
    "based on a book",
    "comedy",
    "action",
    "twist ending",
    "dystopia",
    "dark comedy",
    "classic",
    "psychology",
    "fantasy",
    "romance",
    "thought-provoking",
    "social commentary",
    "violence",
    "true story",
)
CATEGORIES = (
    "food & drink",
    "sports",
    "education",
    "parents",
    "religion",
    "travel",
    "business",
    "crime",
    "science & technology",
    "culture & arts",
    "entertainment",
    "politics",
    "women",
    "style & beauty",
    "healthy living",
)
# The fixed words of a LaMP-1 input, in order.  The candidate titles stand after the last two and
# may contain quotation marks themselves, so the second one ends with the input.
_CITATION_MARKS = ('title "', '", which reference', '[1]: "', '" [2]: "')


@dataclass(frozen=True, slots=True)
class Form:
    """One dataset's format.

    Attributes:
        official: the task's name in output files.
        folder: the dataset's folder in the official tree.
        fields: an entry's fields besides `id` and `date`.
        stimulus: the fields that form a record's stimulus, in order.
        response: the fields that form a record's response, in order.
        document: the fields that form a record's retrieval text, in order.
        wording: the fixed words of an input before the query.
        answer_rule: the words of an input that state the form of the answer; empty if none do.
        marker: the text that the query follows (empty for LaMP-1, whose query is quoted).
        entry: the official prompt's template for one entry.
        long_field: the field of the template that may be truncated.
        bridge: the official prompt's words between the joined entries and the input.
        charged_entry: the entry whose tokens the length budget charges beside the long field, if
            the benchmark's script counts other words than it writes; default: `entry`.
        charged_bridge: the words between entries and input that the budget charges; likewise.
        labels: the full label list; empty for free text.
        input_mark: text that occurs in inputs of this dataset but not of its twin.
        twin: the task whose dataset has the same official name, if any (LaMP-2 has two).
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
    long_field: str
    bridge: str = ". "
    charged_entry: str = ""
    charged_bridge: str = ""
    labels: tuple[str, ...] = ()
    answer_rule: str = ""
    input_mark: str = ""
    twin: str = ""

    def extract_query(self, text: str) -> str | None:
        """Return the query part of an input, stripped; None if the fixed wording is missing."""
        if not self.marker:
            return join_candidates(text)

        _, marker, query = text.partition(self.marker)
        return query.strip() if marker else None

    def format_question(self, stimulus: str, like: str) -> str:
        """Put a stimulus into the wording of the input `like`, by default the official wording."""
        head, marker, _ = like.partition(self.marker)
        prefix = f"{head}{marker}" if marker else self.wording
        return f"{prefix} {stimulus}"

    def remove_answer_rule(self, text: str) -> str:
        """Return an input without the words that state the form of the answer."""
        # The fixed words precede the query, which may quote them.
        return text.replace(self.answer_rule, "", 1) if self.answer_rule else text

    def make_record(self, entry_id: str, fields: Mapping[str, str], date: str | None) -> Record:
        """Convert a profile entry into a record."""
        stimulus = None
        if self.stimulus:
            stimulus = " ".join(fields[name] for name in self.stimulus)

        return Record(
            id=entry_id,
            stimulus=stimulus,
            response="\n".join(fields[name] for name in self.response),
            time=date,
            fields=fields,
        )


def parse_split(text: str) -> tuple[str, str]:
    """Split `[user/|time/]train|dev|test` into separation (default: user) and split.

    Raises:
        UsageError: the text has another form.
    """
    separation, slash, split = text.rpartition("/")
    if not slash:
        separation = "user"

    if separation not in SEPARATIONS or split not in SPLITS:
        raise UsageError(
            f"LaMP has no split '{text}'; write [user/|time/]train|dev|test, for example time/dev"
        )
    return separation, split


def find_candidates(text: str) -> tuple[str, str] | None:
    """Return the two candidate titles of a LaMP-1 input; None if a fixed mark is missing."""
    position = 0
    ends = []
    for mark in _CITATION_MARKS:
        start = text.find(mark, position)
        if start < 0:
            return None
        position = start + len(mark)
        ends.append(position)

    content = text.rstrip()
    if not content.endswith('"') or len(content) <= ends[-1]:
        return None
    first = text[ends[-2] : ends[-1] - len(_CITATION_MARKS[-1])]
    return first, content[ends[-1] : -1]


def join_candidates(text: str) -> str | None:
    """Return the retrieval query of a LaMP-1 input: both candidate titles, joined by a space."""
    candidates = find_candidates(text)
    return " ".join(candidates).strip() if candidates else None


def search_query(form: Form, sample: Sample) -> str:
    """Return the query to search a history with: the query part of the input, or all of it."""
    query = form.extract_query(sample.input)
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
        answer_rule="Just answer with [1] or [2] without explanation. ",
        marker="",
        entry='"{title}"',
        long_field="title",
        labels=("[1]", "[2]"),
    ),
    "lamp2m": Form(
        official="LaMP_2",
        folder="LaMP_2/new",
        fields=("tag", "description"),
        stimulus=("description",),
        response=("tag",),
        document=("description",),
        wording=(
            "Which tag does this movie relate to among the following tags? "
            "Just answer with the tag name without further explanation. "
            f"tags: [{', '.join(TAGS)}] description:"
        ),
        answer_rule="Just answer with the tag name without further explanation. ",
        marker="description:",
        entry='the tag for the movie: "{description}" is "{tag}" ',
        long_field="description",
        labels=TAGS,
        input_mark="tags: [",
        twin="lamp2n",
    ),
    "lamp2n": Form(
        official="LaMP_2",
        folder="LaMP_2",
        fields=("title", "text", "category"),
        stimulus=("text",),
        response=("category",),
        document=("title", "text"),
        wording=(
            "Which category does this article relate to among the following categories? "
            "Just answer with the category name without further explanation. "
            f"categories: [{', '.join(CATEGORIES)}] article:"
        ),
        answer_rule="Just answer with the category name without further explanation. ",
        marker="article:",
        entry='the category for the article: "{text}" is "{category}" ',
        long_field="text",
        labels=CATEGORIES,
        input_mark="categories: [",
        twin="lamp2m",
    ),
    "lamp3": Form(
        official="LaMP_3",
        folder="LaMP_3",
        fields=("text", "score"),
        stimulus=("text",),
        response=("score",),
        document=("text",),
        wording=(
            "What is the score of the following review on a scale of 1 to 5? "
            "just answer with 1, 2, 3, 4, or 5 without further explanation. review:"
        ),
        answer_rule="just answer with 1, 2, 3, 4, or 5 without further explanation. ",
        marker="review:",
        entry='{score} is the score for "{text}" ',
        long_field="text",
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
        long_field="text",
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
        long_field="abstract",
        bridge=". Following the given patterns ",
        charged_entry='"{title}" is a title "{abstract}" ',
        charged_bridge="Following the given patterns",
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
        long_field="text",
    ),
    "lamp7": Form(
        official="LaMP_7",
        folder="LaMP_7",
        fields=("text",),
        stimulus=(),
        response=("text",),
        document=("text",),
        wording="Paraphrase the following tweet without any explanation before or after it:",
        answer_rule=" without any explanation before or after it",
        marker=":",
        entry='"{text}" ',
        long_field="text",
        bridge=" are written by a person. Following the given patterns ",
        charged_entry='"" ',
        charged_bridge="are written by user. Following the given patterns",
    ),
}
