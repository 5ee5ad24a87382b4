"""PersonaMem controls that see golds, and summaries built block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from personamem_files import cell, row, talk, write

from personabench.api.method import Method
from personabench.errors import UsageError
from personabench.methods.full import Full
from personabench.methods.rag import Rag
from personabench.methods.rpm import Rpm
from personabench.methods.shortcuts import MajorityLetter, TypeLength
from personabench.methods.summary import Summary
from personabench.tasks.personamem import PersonaMem
from personabench.tasks.personamem.analysis import Share, score_rules
from personabench.tasks.personamem.data import PersonaMemData
from personabench.testing.trials import Trial, trial
from personabench.types import Request

LETTERS = PersonaMem.Params(records="questions")


def answered(_: Request) -> str:
    return "<final_answer>(b)"


def on(
    folder: Path, method: Method, params: PersonaMem.Params | None = None, **options: Any
) -> Trial:
    task = PersonaMem(params)
    return trial(method, task, dataset=task.open("32k", folder), answer=answered, **options)


def prompts(result: Trial) -> str:
    return "\n".join(message.content for request in result.requests for message in request.messages)


def letters(**params: Any) -> Rpm:
    return Rpm(Rpm.Params(chat="letters", label_history=True, **params))


@pytest.fixture
def question_folder(tmp_path: Path) -> Path:
    """Two conversations of one persona; the first has five questions, the last two at one cut."""
    messages, other_messages = talk("SUAUAUAUAU"), talk("SUAUAU", "other-")
    cuts = (("q1", 2), ("q2", 4), ("q3", 6), ("q4", 8), ("q5", 8))
    rows = [
        row(name, messages, cut, all_options=cell((f"w-{name}", f"gold-{name}", "x", "y")))
        for name, cut in cuts
    ]
    return write(tmp_path, [*rows, row("q6", other_messages, 6)], [messages, other_messages])


def test_histories_of_questions_are_the_earlier_ones_with_their_right_letters(
    question_folder: Path,
) -> None:
    dataset = PersonaMem(LETTERS).open("32k", question_folder)
    histories = {
        sample.id: [record.id for record in sample.history] for sample in dataset.samples()
    }
    assert histories == {
        "q1": [],
        "q2": ["q1"],
        "q3": ["q1", "q2"],
        "q4": ["q1", "q2", "q3"],
        "q5": ["q1", "q2", "q3"],
        "q6": [],
    }
    record = dataset.load(1).history[0]
    assert (record.response, record.stimulus) == ("b", "What about q1?")
    assert record.fields == {"cut": "2", "option": "gold-q1"}
    assert any("has seen golds" in warning for warning in dataset.warnings)
    assert all(not user.history for user in dataset.population()), "nobody else is shown golds"
    shuffled = PersonaMem(PersonaMem.Params(records="questions", shuffle="0")).open(
        "32k", question_folder
    )
    for position in range(5):
        sample = shuffled.load(position)
        for earlier in sample.history:
            original = next(s for s in shuffled.samples() if s.id == earlier.id)
            assert f"({earlier.response})" == original.references[0], "letters as they were shown"


def test_rpm_learns_letters_from_strictly_earlier_questions_and_is_called_an_oracle(
    question_folder: Path,
) -> None:
    result = on(question_folder, letters(), LETTERS)
    flags = {line.sample_id: line.flags for line in result.predictions}
    assert all(counts["label_history"] == 1 for counts in flags.values())
    assert {name for name, counts in flags.items() if "too_few_labels" in counts} == {
        "q1",
        "q2",
        "q3",
        "q6",
    }
    asking = [
        r
        for r in result.requests
        if "What about q4?" in r.messages[-1].content and "gold-q3" in repr(r.messages)
    ]
    assert asking and "gold-q5" not in repr(asking[-1].messages)
    assert letters().privileged and not Rpm().privileged
    with pytest.raises(UsageError, match=r"task\.records=questions"):
        on(question_folder, letters())


def test_other_methods_run_on_histories_of_questions(question_folder: Path) -> None:
    assert "The reply that suited: (b) gold-q1" in prompts(on(question_folder, Rag(), LETTERS))
    contents = [
        request.messages[-1].content for request in on(question_folder, Full(), LETTERS).requests
    ]
    assert len(contents) == 6 and all(text.startswith("What about q") for text in contents), (
        "no conversation is left to show"
    )


def test_summary_is_made_of_blocks_which_later_cuts_reuse(tmp_path: Path) -> None:
    messages = talk("SUASUASUAU")
    early, late = row("q1", messages, 5), row("q2", messages, 10)
    result = on(write(tmp_path, [early, late], [messages]), Summary(), concurrency=1)
    offline = [
        request.messages[-1].content
        for request in result.requests
        if "Profile:" in request.messages[-1].content
    ]
    merging = [text for text in offline if text.startswith("The summaries:")]
    blocks = [text for text in offline if not text.startswith("The summaries:")]
    assert len(merging) == 2 and [text.count("final_answer") for text in merging] == [2, 3]
    mentions = [
        [name for name in ("U1", "U4", "U7", "U9") if f"User: {name}" in text] for text in blocks
    ]
    assert sorted(mentions) == [["U1"], ["U4"], ["U7", "U9"]], (
        "the first two blocks are the same for both cuts"
    )
    booked = [
        sum(not call.cached for call in profile.calls) for profile in result.profiles if profile.key
    ]
    assert sorted(booked) == [2, 3]
    plain = on(tmp_path, Summary(Summary.Params(blocks=False)), concurrency=1)
    assert sum("Profile:" in request.messages[-1].content for request in plain.requests) == 2


def test_rpm_reads_a_conversation_block_by_block_and_later_cuts_reuse_the_windows(
    tmp_path: Path,
) -> None:
    messages = talk("SUASUASUAU")
    folder = write(tmp_path, [row("q1", messages, 5), row("q2", messages, 10)], [messages])
    task = PersonaMem()
    result = trial(
        Rpm(),
        task,
        dataset=task.open("32k", folder),
        answer=lambda _: '{"items": []}',
        concurrency=1,
    )
    windows = [
        request.messages[-1].content
        for request in result.requests
        if "situation" in repr(request.messages)
    ]
    mentions = [[name for name in ("U1", "U4", "U7", "U9") if name in text] for text in windows]
    assert sorted(mentions) == [["U1"], ["U4"], ["U7", "U9"]], (
        "no window spans blocks, and the later cut asks for what is new"
    )


def test_rules_that_have_seen_golds_are_rows_and_only_oracles_are_told(tmp_path: Path) -> None:
    messages, options = talk("SUAU"), cell(("longest of all", "bb", "ccc", "d"))
    golds = ("(a)", "(a)", "(d)", "(d)", "(a)")
    rows = [
        row(
            f"q{number}",
            messages,
            4,
            all_options=options,
            correct_answer=gold,
            persona_id=str(number % 2),
        )
        for number, gold in enumerate(golds)
    ]
    folder = write(tmp_path, rows, [messages])
    dataset = PersonaMem().open("32k", folder)
    assert isinstance(dataset, PersonaMemData)
    expected = score_rules(dataset.questions)
    for method, name in (
        (MajorityLetter(), "majority-letter (a) (uses gold)"),
        (TypeLength(), "type-length (uses gold)"),
    ):
        result = on(folder, method)
        share = expected[name]
        assert isinstance(share, Share) and not result.requests
        assert result.summary.metrics["official"]["accuracy"] == pytest.approx(share.accuracy)
    assert [line.output for line in on(folder, MajorityLetter()).predictions] == ["(a)"] * 5
    assert on(folder, MajorityLetter(), limit=1).predictions[0].output == "(a)"
    assert not dataset.load(0).view().hidden and dataset.load(0).view(privileged=True).hidden
    with pytest.raises(UsageError, match="no picks of rules"):
        trial(MajorityLetter(), "lamp4", limit=1)
