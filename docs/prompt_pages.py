"""Write docs/methods/prompts: the requests of each method for one example sample, stage by stage.

    python docs/prompt_pages.py

The requests are those of a dry run, in which `…` stands for a reply. A test compares the pages with
what this script writes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from personabench.api import registry
from personabench.api.prompts import (
    ROLES,
    VOCABULARY_SLOTS,
    WORDINGS,
    PromptFile,
    Prompts,
    fill_slots,
    list_slots,
)
from personabench.api.task import Task
from personabench.api.wording import Vocabulary, WordingName
from personabench.models.backends.scripted import FILLER
from personabench.run import plan
from personabench.run.options import Options
from personabench.types import Message, Record

PAGES = Path(__file__).parent / "methods" / "prompts"
RECORDS = 3
"""Records in the history of the sample, few enough for a page that can be read."""

ANSWER = "answer"
DRAFT = ("draft", "A record as a question, as `none` sends it; the reply is a draft.")
NAMES = {"full": "Wording `full`", "compact": "Wording `compact`"}


@dataclass(frozen=True)
class Case:
    """A dry run that reaches some of a method's stages."""

    method: str
    task: str
    sample: str
    settings: tuple[str, ...] = ()

    @property
    def history(self) -> str:
        """The history control; a task that is a conversation has no history to shorten."""
        return "own" if self.task == "penguin" else f"size={RECORDS}"

    def command(self, wording: str) -> str:
        """The command that prints the same requests."""
        words = [
            f"personabench show --dry-run --method {self.method} --task {self.task}",
            f"--sample {self.sample} --history {self.history} --wording {wording}",
            *(f"--set {setting}" for setting in self.settings),
        ]
        return " ".join(words)


HEADLINE = ("lamp4", "310")
REVIEW = ("reviews", "marlow_v-P0DOVETL14")
TAG = ("lamp2m", "111")
TITLE = ("lamp5", "410")
TWEET = ("lamp7", "610")
REPLY = ("prefeval", "pet_ownership-000")
DELICATE = ("penguin", "career-bb346d721be2")
UNSAFE = ("usafebench", "safety/id_1")
CONVERSATION = ("locomo", "locomo_0_qa0")

CASES: Mapping[str, Sequence[Case]] = {
    "summary": [Case("summary", *HEADLINE)],
    "trsr": [
        Case("trsr", *HEADLINE, ("trsr.block=2", "trsr.recent=1")),
        Case("trsr", *HEADLINE, ("trsr.block=2", "trsr.mode=hierarchical")),
    ],
    "cicl": [Case("cicl", *REVIEW), Case("cicl", *REVIEW, ("cicl.two_step=true",))],
    "compsum": [Case("compsum", *REVIEW)],
    "persona_db": [Case("persona_db", *HEADLINE)],
    "dpl": [Case("dpl", *REVIEW)],
    "drp": [Case("drp", *REVIEW)],
    "cipher": [
        Case("cipher", *HEADLINE),
        Case("cipher", *TAG),
        Case("icl_edit", *HEADLINE),
        Case("cot_edit", *HEADLINE),
    ],
    "remind": [
        Case("remind", *REPLY),
        Case("cot", *REPLY),
        Case("rag_k", *REPLY, ("rag_k.k=2",)),
        Case("self_critic", *REPLY),
    ],
    "raise": [
        Case("raise", *DELICATE, ("raise.plans=1", "raise.depth=1")),
        Case("raise", *DELICATE, ("raise.plans=1", "raise.planner=tree", "raise.rollouts=1")),
    ],
    "two_step": [Case("two_step", *UNSAFE)],
    "rpm": [Case("rpm", *TAG), Case("rpm", *TITLE)],
    "hyperalign": [
        Case("hyperalign", *HEADLINE, ("hyperalign.select=validate", "hyperalign.n_validation=1")),
        Case("hyperalign", *TAG),
    ],
    "fermi": [
        Case("fermi", *TAG, ("fermi.rounds=2", "fermi.n_prompts=2")),
        Case("fermi", *TWEET, ("fermi.rounds=0",)),
    ],
    "k_lamp": [
        Case("k_lamp", *HEADLINE),
        Case("k_lamp", *HEADLINE, ("k_lamp.policy=unfamiliar",)),
    ],
    "eragent": [Case("eragent", *HEADLINE, ("eragent.k=2",))],
    "mem0_like": [
        Case("mem0_like", *CONVERSATION),
        Case("mem0_like", *CONVERSATION, ("mem0_like.mode=additive",)),
    ],
    "amem_like": [Case("amem_like", *CONVERSATION)],
    "memorybank_like": [Case("memorybank_like", *CONVERSATION)],
    "memoryos_like": [Case("memoryos_like", *CONVERSATION, ("memoryos_like.queue=0",))],
    "mara": [Case("mara", *HEADLINE, ("mara.k=2",))],
    "prose": [
        Case("prose", *HEADLINE, ("prose.records=2", "prose.steps=1")),
        Case("prose", *HEADLINE, ("prose.records=2", "prose.steps=1", "prose.verify=false")),
    ],
    "self_recheck": [Case("rag+self_recheck", *HEADLINE, ("rag.k=2",))],
}


@dataclass(frozen=True)
class Shown:
    """A request of a page."""

    case: Case
    stage: str
    about: str
    messages: tuple[Message, ...]


def write_page(method: str) -> str:
    """Write the page of a method."""
    parts = [
        f"# Prompts of `{method}`",
        "One request per stage for one example sample, in both [wordings](../../prompts.md), as "
        "`python docs/prompt_pages.py`\nwrites them. The history has the "
        f"{RECORDS} newest records; `…` stands for an earlier reply.",
    ]
    for wording in WORDINGS:
        parts.append(f"## {NAMES[wording]}")
        parts += _write_wording(method, wording)
    return "\n\n".join(parts) + "\n"


def _write_wording(method: str, wording: WordingName) -> Iterator[str]:
    written: set[str] = set()
    for case in CASES[method]:
        shown = [
            request for request in list_requests(case, wording) if request.stage not in written
        ]
        if not shown:
            continue
        written |= {request.stage for request in shown} - {ANSWER}
        yield f"```text\n$ {case.command(wording)}\n```"
        for request in shown:
            yield f"### {request.stage}\n\n{request.about}"
            for message in request.messages:
                content = hide_marks(message.content, request.case.task)
                yield f"{message.role}:\n\n```text\n{content}\n```"


def list_requests(case: Case, wording: WordingName) -> list[Shown]:
    """One request of each stage, in the order of the stages' first requests."""
    options = Options(
        methods=[case.method],
        tasks=[case.task],
        backend="scripted",
        assignments=list(case.settings),
        history=case.history,
        wording=wording,
        cache="off",
    )
    _, calls = asyncio.run(plan.preview(options, case.sample))
    # A judge's requests are the task's, and no part of the method.
    requests = [tuple(call.request.messages) for call in calls if call.phase != "judge"]

    task = registry.load_class("task", case.task)()
    task.choose_wording(wording)
    prompts = Prompts(registry.load_class("method", case.method).prompts, wording)
    shown: dict[str, list[Shown]] = {}
    for messages in requests:
        stage, about = find_stage(messages, prompts, task.words)
        # A repeated request for the answer is longer by a reminder.
        is_final = requests[-1][-1].content.startswith(messages[-1].content)
        if stage == ANSWER and not is_final:
            stage, about = DRAFT
        shown.setdefault(stage, []).append(Shown(case, stage, about, messages))

    history = read_history(task, case.sample)
    return [choose(candidates, history) for candidates in shown.values()]


def read_history(task: Task, sample_id: str) -> tuple[Record, ...]:
    """The history of the sample's user."""
    samples = task.open(task.default_split, None).samples()
    return next(sample.history for sample in samples if sample.id == sample_id)


def choose(candidates: Sequence[Shown], history: Sequence[Record]) -> Shown:
    """The request that is most about the user, whatever the order of concurrent ones."""

    def key(shown: Shown) -> tuple[int, int, str]:
        text = "\n".join(message.content for message in shown.messages)
        quoted = sum(record.response in text for record in history)
        return -quoted, len(text), text

    return min(candidates, key=key)


def find_stage(
    messages: Sequence[Message],
    prompts: Prompts,
    words: Vocabulary,
) -> tuple[str, str]:
    """The stage whose texts a request is made of, with its purpose; else it is for an answer."""
    for file in prompts.files or ():
        for name, stage in file.stages.items():
            texts = prompts.resolved[file.owner][name]
            patterns = [_as_pattern(texts[role], words) for role in ROLES if texts.get(role)]
            if len(patterns) == len(messages) and all(
                pattern.fullmatch(message.content)
                for pattern, message in zip(patterns, messages, strict=True)
            ):
                return _name(file, name, prompts), stage.about
    return ANSWER, "The task's request for an answer, with what the method puts into it."


def _name(file: PromptFile, stage: str, prompts: Prompts) -> str:
    assert prompts.files
    return stage if file is prompts.files[0] else f"{file.owner}: {stage}"


def hide_marks(text: str, task: str) -> str:
    """Remove the marks by which a dry run tells replies apart."""
    replies = "|".join(map(re.escape, (FILLER, *registry.load_class("task", task).labels)))
    return re.sub(rf"(?:{replies}) [a-z]{{12}}\b", FILLER, text)


def _as_pattern(text: str, words: Vocabulary) -> re.Pattern[str]:
    """The texts that a template can become."""
    wildcard = "\x00"
    values: dict[str, str] = {}
    for name in list_slots(text):
        values[name] = wildcard
        if name in VOCABULARY_SLOTS:
            word: str = getattr(words, name.lower())
            values[name] = word if name.islower() else word.capitalize()
    filled = fill_slots(text, values)
    return re.compile(re.escape(filled).replace(wildcard, ".*"), re.DOTALL)


def main() -> None:
    """Write all pages."""
    PAGES.mkdir(exist_ok=True)
    for method in CASES:
        (PAGES / f"{method}.md").write_text(write_page(method), encoding="utf-8")


if __name__ == "__main__":
    main()
