"""Texts of PRELUDE: as ever for small models, as in the paper for others, or an author's own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prelude_files import write_notes

from personabench.api.prompts import Replacements
from personabench.errors import UsageError
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.run import runner
from personabench.types import Message, Request

OWN = {
    "prelude": {
        "system": {"text": "A line of mine."},
        "document": {"text": "Text: {document}"},
        "preference": {"text": "Style: {notes}"},
        "draft": {"text": "Summary:"},
        "draft_for_user": {"text": "Summary in that style:"},
        "accept": {"system": "Mine.", "user": "{document} {draft} {preference} fine?"},
        "rewrite": {"system": "Mine.", "user": "{draft} {preference} better:"},
    }
}


def run(folder: Path, wording: Any, prompts: Any = None, methods: Any = ("none", "oracle")) -> Any:
    """The requests for drafts and those to the user, and the outcomes."""
    drafts: list[tuple[Message, ...]] = []
    calls: list[tuple[Message, ...]] = []

    def draft(request: Request) -> str:
        drafts.append(request.messages)
        return "A Draft."

    def react(request: Request) -> str:
        calls.append(request.messages)
        return "no, a draft"

    options = runner.Options(
        list(methods),
        ["prelude_summ"],
        data=write_notes(folder / "notes"),
        backend="scripted",
        wording=wording,
        prompts=prompts,
        cache="off",
        results=folder / "results",
        assignments=["task.rounds=5", "task.trajectories=1", "task.accuracy=off"],
    )
    user = Scripted(BackendOptions(model="user"), answer=react)
    outcomes = asyncio.run(
        runner.run(options, backend=Scripted(answer=draft), roles={"simulator": user})
    )
    return drafts, calls, outcomes


def texts(messages: tuple[Message, ...]) -> list[str]:
    return [f"{message.role}: {message.content}" for message in messages]


def test_the_texts_for_small_models_are_as_ever(tmp_path: Path) -> None:
    drafts, calls, _ = run(tmp_path, "compact")
    ending = (
        "Write the summary that this reader would like. Answer with the summary and nothing else."
    )
    plain, informed = texts(drafts[0]), texts(drafts[-1])
    document = plain[0].split("\n\n")[1]
    assert plain == [f"user: Summarise this document.\n\n{document}\n\n{ending}"]
    assert informed[0].startswith("system: About this reader:\nPrefers: wish of ")
    assert informed[1].endswith(f"\n\n{ending}")
    opening = "system: You are a person who looks through what an assistant drafted for you."
    accept, rewrite = texts(calls[0]), texts(calls[1])
    assert accept[0] == rewrite[0] == opening
    liked = accept[1].split("like this: ")[1].split(".\n")[0]
    assert accept[1] == (
        "user: From the document below, an assistant made you a summary.\n\n"
        f"Document:\n{document}\n\nSummary:\nA Draft.\n\n"
        f"You like every summary to be like this: {liked}.\n"
        "Is the summary fine for you as it stands? Answer with yes or no."
    )
    assert rewrite[1] == (
        f"user: Summary:\nA Draft.\n\nYou like every summary to be like this: {liked}.\n"
        "Change the summary until you like it, and leave what it says as it is. "
        "Answer with the changed text alone, without a remark."
    )


def test_the_full_texts_say_no_more_than_the_papers(tmp_path: Path) -> None:
    drafts, calls, _ = run(tmp_path, "full")
    # Without anything known of the reader, no reader is mentioned.
    plain = [text for text in map(texts, drafts) if len(text) == 1]
    assert len(plain) == 5
    assert not any("reader" in text for (text,) in plain)
    informed = [text for text in map(texts, drafts) if len(text) == 2]
    assert all("that this reader would like" in text[1] for text in informed)
    rewrites = [text for text in map(texts, calls) if "Change the summary" in text[1]]
    assert len(rewrites) == 10
    assert not any("leave what it says" in text[1] for text in rewrites)


def test_an_authors_texts_replace_all_of_them(tmp_path: Path) -> None:
    drafts, calls, outcomes = run(tmp_path, "full", Replacements("mine.toml", OWN))
    plain, informed = texts(drafts[0]), texts(drafts[-1])
    document = plain[1].split(": ", 2)[2].split("\n")[0]
    assert plain == ["system: A line of mine.", f"user: Text: {document}\n\nSummary:"]
    assert informed[0].startswith("system: A line of mine.\n\nStyle: ")
    assert informed[1].endswith("\n\nSummary in that style:")
    accept, rewrite = texts(calls[0]), texts(calls[1])
    assert accept[0] == rewrite[0] == "system: Mine."
    assert accept[1].startswith(f"user: {document} A Draft. ") and accept[1].endswith(" fine?")
    assert rewrite[1].startswith("user: A Draft. ") and rewrite[1].endswith(" better:")

    # They are part of the run's identity and of its name.
    _, _, others = run(tmp_path, "full")
    for own, other in zip(outcomes, others, strict=True):
        assert own.folder != other.folder
        assert own.summary.changed["prompts"].startswith("mine-")
        assert "prompts" not in other.summary.changed


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"acept": {"user": "x"}}, "did you mean accept"),
        ({"accept": {"user": "{document} {draft}"}}, "slot {preference}"),
        ({"rewrite": {"user": "{draft} {preference} {document}"}}, "no slot {document}"),
    ],
)
def test_texts_that_cannot_work_are_refused(
    tmp_path: Path, stage: dict[str, dict[str, str]], message: str
) -> None:
    with pytest.raises(UsageError, match=message.replace("{", r"\{")):
        run(tmp_path, "full", Replacements("mine.toml", {"prelude": stage}))


def test_seeds_can_be_named(tmp_path: Path) -> None:
    folder = write_notes(tmp_path / "notes")
    options = runner.Options(
        ["none"],
        ["prelude_summ"],
        data=folder,
        backend="scripted",
        results=tmp_path / "results",
        assignments=["task.rounds=5", "task.seeds=3,7", "task.user=rule", "task.accuracy=off"],
    )
    (outcome,) = asyncio.run(runner.run(options))
    assert outcome.summary.users == 2
    predictions = (outcome.folder / "predictions.jsonl").read_text()
    assert '"trajectory-3"' in predictions and '"trajectory-7"' in predictions
