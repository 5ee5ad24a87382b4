"""Formats of LongLaMP's four datasets: fields, retrieval texts, and the benchmark's own prompts.

The tasks differ in data rather than code.  Field names, retrieval texts and templates follow the
published files and the paper (arXiv 2407.11016).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from personabench.errors import UsageError

SETTINGS = ("user", "temporal")
SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "validation", "dev"),
    "test": ("test",),
}
"""Splits, and their names in files and on the command line."""
Template = Literal["longlamp-official", "longlamp-llama"]


@dataclass(frozen=True, slots=True)
class Form:
    """One dataset's format.

    Attributes:
        config: the configuration's name without its setting.
        user_field: the field that names the user, which may be missing.
        fields: an entry's fields, the accepted other name of each beside it.
        stimulus: the fields that form a record's stimulus, in order.
        long_field: the field that may be cut, which is also the record's response.
        document: the fields that form a record's retrieval text, in order.
        marker: the text that the query follows; empty for the whole input.
        request: a question made of a stimulus, to draft a past response.
        time_field: the field with a record's date; empty if none has.
        entry: the official prompt's template for one entry.
        bridge: the official prompt's words between the joined entries and the input.
        max_words: the words of the long field that the official prompt shows at most; 0 for all.
        llama: entry, bridge and words of the second official prompt, where they differ.
        llama_opening: what stands before the entries of the second prompt.
        llama_separator: what joins the entries of the second prompt.
        sizes: published numbers of rows of train, val and test, user setting.
    """

    config: str
    user_field: str
    fields: Mapping[str, str]
    stimulus: tuple[str, ...]
    long_field: str
    document: tuple[str, ...]
    request: str
    entry: str
    bridge: str
    marker: str = ""
    time_field: str = ""
    max_words: int = 0
    llama: tuple[str, str, int] | None = None
    llama_opening: str = ""
    llama_separator: str = ", and "
    sizes: tuple[int, int, int] | None = field(default=None)

    def find_query(self, text: str) -> str | None:
        """The query of an input; None if the marker that it follows is missing."""
        if not self.marker:
            return text
        _, marker, query = text.partition(self.marker)
        return query.strip() if marker else None


_REVIEW_ENTRY = (
    '"{overall}" is a rating for the product with description "{description}". '
    '"{summary}" is summary for "{reviewText}" '
)
_TOPIC_ENTRY = '"{summary}" is a summary for "{content}" '
_EMAIL_ENTRY = '"{title}" is the title for "{text}" '
_PATTERNS = ". Following the given patterns "

FORMS: Mapping[str, Form] = {
    "longlamp_abstract": Form(
        config="abstract_generation",
        user_field="name",
        fields={"title": "", "abstract": "", "year": ""},
        stimulus=("title",),
        long_field="abstract",
        document=("title", "abstract"),
        request="Write the abstract of the paper with this title: {stimulus}",
        entry='"{abstract}" is the abstract for the title "{title}"',
        bridge=(
            ". Use the above abstracts as context to understand the style and language of the "
            "user and, "
        ),
        marker="items:",
        time_field="year",
        max_words=750,
        sizes=None,
    ),
    "longlamp_review": Form(
        config="product_review",
        user_field="reviewerId",
        fields={"overall": "", "summary": "", "description": "", "reviewText": ""},
        stimulus=("description", "overall", "summary"),
        long_field="reviewText",
        document=("overall", "summary", "description", "reviewText"),
        request="Write the review of a product. What is known of product and review: {stimulus}",
        entry=_REVIEW_ENTRY,
        bridge=_PATTERNS,
        llama=(
            '"{reviewText}"',
            ". Use the above list of review texts by the reviewer as context to understand the "
            "writing style and language of the reviewer and, ",
            100,
        ),
        llama_opening="Below are a list of review texts by the reviewer:",
        sizes=(14745, 1826, 1822),
    ),
    "longlamp_topic": Form(
        config="topic_writing",
        user_field="author",
        fields={"summary": "input", "content": "output"},
        stimulus=("summary",),
        long_field="content",
        document=("summary", "content"),
        request="Write the post with this summary: {stimulus}",
        entry=_TOPIC_ENTRY,
        bridge=". Following the given patterns, ",
        llama=(_TOPIC_ENTRY, _PATTERNS, 0),
        sizes=(11442, 2453, 2452),
    ),
    "longlamp_email": Form(
        config="email_completion",
        user_field="name",
        fields={"title": "", "text": ""},
        stimulus=("title",),
        long_field="text",
        document=("text",),
        request="Write the email with this subject: {stimulus}",
        entry=_EMAIL_ENTRY,
        bridge=". ",
        marker=":",
        llama=(_EMAIL_ENTRY, _PATTERNS, 0),
        sizes=(3286, 958, 823),
    ),
}


def parse_split(task: str, split: str) -> tuple[str, str]:
    """Split `SETTING/SPLIT` into both; a split alone is of the user setting.

    Raises:
        UsageError: there is no such setting or split.
    """
    setting, _, name = split.rpartition("/")
    known = next((split for split, names in SPLITS.items() if name in names), "")
    if not known or setting not in ("", *SETTINGS):
        raise UsageError(
            f"{task} has no split '{split}'; write user or temporal, a slash, and train, val or "
            "test, such as temporal/test"
        )
    return setting or "user", known
