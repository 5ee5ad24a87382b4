"""A model that only reads: it answers with the evidence about the user in its prompt.

It receives a request and nothing else, so all its knowledge of a user is in the text of the prompt.
Evidence is of two kinds.  A record is a stimulus with the user's response.  A remark is this
reader's own description of records in an earlier call, which comes back to it as a summary, a
preference, a difference or a rationale:

    labels   gives 3 for late, cheap; gives 5 for punctual, praise
    texts    opens with "You Can Now" and closes with "".

Of a review the reader understands `POINTS`, whoever wrote it; of a plot it uses the longest words.
For a label, it returns that of the evidence which has most of these in common with the question;
for a headline, it puts the article's first words between the opening and the closing that the
user's headlines share.  Without evidence it answers with the middle score, the first tag, or the
article's first words alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from personabench import Request

FIRST_WORDS = 9
LONGEST_WORDS = 9
EDGE = 4
MOST = 0.7
POINTS = {
    "late": (
        r"(weeks?|days?|hours?) (late|after)|turned up on|was due|Thursday after"
        r"|came on the 19th|waited an hour"
    ),
    "punctual": (
        r"on time|days early|came on Thursday|there they were|bell rang|exact morning"
        r"|as promised"
    ),
    "cheap": r"bargain|cheap|value|a steal|half (of )?what|two pounds",
    "dear": r"overpriced|too dear|robbery|price|costs me more|pay more|expensive",
    "plastic": r"(?<!no )(?<!any )(?<!of )plastic",
    "no plastic": r"(no|any|scrap of) plastic|cardboard|newspaper|paper and string|twist of paper",
    "strong ending": (
        r"last (forty pages|ten minutes|bite)|final (line|chapter)|perfect a close"
        r"|But the ending!"
    ),
    "weak ending": r"ending cheats|fizzles",
    "kind people": r"apologised|said sorry|a joy|kind woman|carried it back",
    "rude people": (
        r"rolled his eyes|would not look up|nobody has answered|not one answer"
        r"|a recording|sighed"
    ),
    "lasted": r"years|like new|winters",
    "broke": r"cracked|motor|gave up|pulled right out|died",
    "too soon": r"can't (say|tell|know)|too (soon|early)|ask me again|out twice",
    "wants another": r"again|another|a second|every day",
    "wants no more": (
        r"not choose|won't be|ancelled|different chair|answer is no|bother with|else's"
        r"|Never"
    ),
    "better than before": r"step up|puts right|doubled|better than the (old|last|first)",
    "same as before": r"the same|no different",
    "worse than before": r"step back|worse than|the old one (told|found|had)|used to",
    "thrilled": (
        r"thrilled|favourite|laughed until|hung it|She wore|rang me|like a pet"
        r"|in one weekend"
    ),
    "unmoved": (
        r"politely|'oh, nice'|'mm, lovely'|four seconds|handed the tray"
        r"|put it (down|on the shelf)"
    ),
    "praise": (
        r"best|finest|superb|gorgeous|love(ly|liest)|perfect|besotted|delight|heaven|joy"
        r"|splendid|cannot praise"
    ),
    "ruin": (
        r"useless|rubbish|catastrophe|sorry evening|disappointment|stone cold|badly"
        r"|misses|eats pencils"
    ),
    "complaint": (
        r"grumble|one thing against|wobbles|drags|sags|squeaks|ordinary|however"
        r"|Two (gripes|compl)|faults?"
    ),
}

_STIMULUS = re.compile(r"(?:Article|Review|Plot): (.*)")
_RESPONSE = re.compile(r"(?:Headline|Score|Tag|Final): (.*)")
_PEER = re.compile(r"(?:Other person \d+|Somebody else):$")
_USER = re.compile(r"This \w+:$|How this|Earlier|Case \d|Pair \d")
_GIVES = re.compile(r"gives ([^;:.\n]+?) for ([^;.\n]+)")
_OPENS = re.compile(r'opens with "([^"]*)" and closes with "([^"]*)"')
_ASKED = re.compile(r"(?:article|review|description): (.*)", re.DOTALL)
_CONTRACT = re.compile(
    r"\n\n[^\n]*Reply with (the headline|1, 2, 3, 4 or 5|one of the tags) only\.$"
)

Edges = tuple[tuple[str, ...], tuple[str, ...]]
"""How a text begins and how it ends, as words."""


class Evidence(NamedTuple):
    """The evidence in a prompt: labels with the key words that got them, and the edges of texts."""

    labels: list[tuple[str, frozenset[str]]]
    edges: list[Edges]


def read(request: Request) -> str:
    """The reply to a request."""
    system = "".join(message.content for message in request.messages if message.role == "system")
    first, *rest = (message.content for message in request.messages if message.role != "system")
    *turns, last = (_CONTRACT.sub("", first), *rest)
    answers_in_json = request.schema is not None and "answer" in request.schema["properties"]
    if answers_in_json:
        # The goal and the form of the method's own reply.
        last = last.rsplit("\n\n", 2)[0]
    if request.schema is not None and "answer" not in request.schema["properties"]:
        return json.dumps(_form(request, last))
    if not rest and not answers_in_json and not _CONTRACT.search(first):
        return _remarks(_evidence(last, ()))
    examples = list(zip(turns[::2], turns[1::2], strict=True))
    answer = _answer(last, _evidence(system, examples))
    return (
        answer
        if request.schema is None
        else json.dumps({"reasoning": "As the cases show.", "answer": answer})
    )


def blind(request: Request) -> str:
    """The reply of a model that sees the question alone, whatever a method adds to it."""
    final = _CONTRACT.sub("", request.messages[-1].content)
    return _answer(final, Evidence([], [])) if _ASKED.search(final) else read(request)


def _evidence(text: str, examples: Iterable[tuple[str, str]]) -> Evidence:
    """The evidence in a text's records and remarks, and in earlier turns."""
    records = [
        *_records(text),
        *((_subject_of(question), response) for question, response in examples),
    ]
    labels = [
        (label.strip(), frozenset(words.split(", "))) for label, words in _GIVES.findall(text)
    ]
    edges = [(tuple(first.split()), tuple(last.split())) for first, last in _OPENS.findall(text)]
    for about, response in records:
        words = _words(response)
        if len(words) > 3:
            edges.append((tuple(words[:EDGE]), tuple(words[-EDGE:])))
        else:
            labels.append((response.strip(), _noticed(about, review=response.strip().isdigit())))
    return Evidence(labels, edges)


def _records(text: str) -> Iterator[tuple[str, str]]:
    """The stimulus and response of every record that is the user's, without those of peers."""
    about, is_user = "", True
    for line in text.splitlines():
        if _PEER.match(line):
            is_user = False
        elif _USER.match(line):
            is_user = True
        elif stimulus := _STIMULUS.match(line):
            about = stimulus[1] if is_user else about
        elif (response := _RESPONSE.match(line)) and is_user:
            yield about, response[1]


def _remarks(evidence: Evidence) -> str:
    """A remark about the user that can be parsed as evidence again."""
    if evidence.labels:
        return "; ".join(
            f"gives {label} for {', '.join(sorted(words))}" for label, words in evidence.labels
        )
    opening, closing = _habit(evidence.edges)
    return f'opens with "{" ".join(opening)}" and closes with "{" ".join(closing)}".'


def _answer(question: str, evidence: Evidence) -> str:
    about = _subject_of(question)
    if "article: " in question:
        opening, closing = _habit(evidence.edges)
        return " ".join(
            [
                *opening,
                *_words(about)[:FIRST_WORDS],
                *closing,
            ]
        )
    points = _noticed(about, review="review: " in question)
    usual = Counter(label for label, _ in evidence.labels)
    plainly = question.partition("tags: [")[2].partition(",")[0] or "3"

    def nearness(labelled: tuple[str, frozenset[str]]) -> tuple[float, int]:
        label, noticed = labelled
        return len(noticed & points) / max(len(noticed | points), 1), usual[label]

    label, noticed = max(
        evidence.labels,
        key=nearness,
        default=("", frozenset()),
    )
    return label if noticed & points else plainly


def _habit(edges: Sequence[Edges]) -> Edges:
    """The longest opening and the longest closing that most texts share."""
    opening = _shared([first for first, _ in edges])
    closing = _shared([last[::-1] for _, last in edges])[::-1]
    return opening, closing


def _shared(beginnings: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    for length in range(EDGE, 0, -1):
        counts = Counter(beginning[:length] for beginning in beginnings if len(beginning) >= length)
        best, times = counts.most_common(1)[0] if counts else ((), 0)
        if best and times >= MOST * len(beginnings):
            return best
    return ()


def _form(request: Request, last: str) -> dict[str, Any]:
    """rpm's forms: one feature, one factor, and every feature of influence."""
    assert request.schema is not None
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", last, re.MULTILINE)]
    if "features" in request.schema["properties"]:
        about = ", ".join(
            sorted(_noticed(last.partition(": ")[2], review=last.startswith("Review")))
        )
        feature = {"name": "subject", "context": about, "factor": "subject matter"}
        return {"features": [feature]}
    if "factors" in request.schema["properties"]:
        return {
            "factors": [
                {"factor": "subject matter", "description": "what it is about", "ids": numbers}
            ]
        }
    return {
        "judgements": [
            {
                "id": number,
                "influential": True,
                "polarity": "neutral",
            }
            for number in numbers
        ]
    }


def _subject_of(question: str) -> str:
    match = _ASKED.search(question)
    return match[1] if match else question


def _noticed(text: str, *, review: bool) -> frozenset[str]:
    """The key words of a stimulus: the points a review makes, else its longest words."""
    if review:
        return frozenset(point for point, pattern in POINTS.items() if re.search(pattern, text))
    longest = sorted(
        set(re.findall(r"[a-z]{5,}", text.lower())), key=lambda word: (-len(word), word)
    )
    return frozenset(longest[:LONGEST_WORDS])


def _words(text: str) -> list[str]:
    """The words and marks of a text, without quotation marks."""
    return re.findall(r"[\w'’-]+|[^\w\s\"“”'’.,;]|,", text)
