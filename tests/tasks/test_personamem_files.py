"""PersonaMem files: parsing, error messages and the content of samples."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from personamem_files import OPTIONS, cell, row, talk, write

from personabench.errors import DataError, UsageError
from personabench.tasks.personamem import PersonaMem
from personabench.tasks.personamem.analysis import Share, score_rules
from personabench.tasks.personamem.data import PersonaMemData, order_options
from personabench.tasks.personamem.files import COLUMNS, context_id, parse_options

TALK = talk("SUUASU")


def opened(folder: Path, **params: Any) -> PersonaMemData:
    return PersonaMem(PersonaMem.Params(**params)).open("32k", folder)


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        opened(folder)
    return str(caught.value)


def test_acceptance_1_line_breaks_crlf_and_mixed_quoting(tmp_path: Path) -> None:
    options = ("It's fine.", 'Say "hello".', 'Both\'s "fine".', "One\nand two.")
    rows = [
        row("q1", TALK, 6, user_question_or_message="First line,\r\nsecond line"),
        row("q2", TALK, 6, all_options=cell(options), user_question_or_message='A "quoted", word'),
        row(
            "q3",
            TALK,
            6,
            all_options=json.dumps([f"({x}) {t}" for x, t in zip("abcd", OPTIONS, strict=True)]),
        ),
    ]
    dataset = opened(write(tmp_path, rows, [TALK]))
    assert [name for name, _ in dataset.index()] == ["q1", "q2", "q3"]
    assert dataset.load(0).stimulus == "First line,\r\nsecond line"
    assert dataset.questions[1].texts == options and dataset.questions[2].texts == OPTIONS
    assert dataset.warnings[-2:] == tuple(
        w for w in dataset.warnings if "not the published version" in w
    )


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd()",
        "['(a) x'] * 4",
        "[str(1), '(b) x', '(c) x', '(d) x']",
        "[x for x in '1234']",
        "['(a) x', '(b) x', '(c) x']",
        "['(a) x', '(c) x', '(b) x', '(d) x']",
        "['(a) x', '(b) x', '(c) x', 4]",
        "",
    ],
)
def test_acceptance_1_code_and_wrong_lists_in_an_options_cell_are_refused(
    tmp_path: Path, text: str
) -> None:
    assert isinstance(parse_options(text), str)
    message = refused(write(tmp_path, [row("q1", TALK, 6, all_options=text)], [TALK]))
    assert "questions_32k.csv: question q1: all_options" in message


def test_acceptance_2_id_rule() -> None:
    messages = [
        {"role": "system", "content": "P"},
        {"role": "user", "content": "User: it's me"},
        {"role": "assistant", "content": "Assistant: hé"},
    ]
    assert (
        context_id(messages) == "c982fa0716b098c0d51325674519ed3148f6f2d39226af7e2da986a1d047e986"
    )


def test_acceptance_2_one_changed_character_is_reported(tmp_path: Path) -> None:
    folder = write(tmp_path, [row("q1", TALK, 6)], [TALK])
    task = PersonaMem()
    assert task.audit(task.open("32k", folder)) == []
    path = folder / "shared_contexts_32k.jsonl"
    path.write_text(path.read_text().replace("A3", "A4"))
    altered = task.open("32k", folder)
    assert len(task.audit(altered)) == 1 and "does not match its id" in task.audit(altered)[0]
    assert any("break their own rules" in warning for warning in altered.warnings)


def test_acceptance_3_a_cut_outside_of_the_conversation_is_an_error(tmp_path: Path) -> None:
    assert "belongs before message 7" in refused(write(tmp_path, [row("q1", TALK, 7)], [TALK]))


def test_acceptance_3_a_cut_that_is_not_the_published_one_is_reported(tmp_path: Path) -> None:
    rows = [row("q1", TALK, 4), row("q2", TALK, 4, end_index_in_shared_context=5)]
    (defect,) = opened(write(tmp_path, rows, [TALK])).defects
    assert "question q2: the history before message 5" in defect


def test_history_ends_before_the_cut_and_is_the_conversation_again(tmp_path: Path) -> None:
    dataset = opened(
        write(tmp_path, [row("q1", TALK, 4), row("q2", TALK, 6), row("q3", TALK, 5)], [TALK])
    )
    assert [record.response for record in dataset.load(0).history] == ["U1", "U2"]
    assert [record.response for record in dataset.load(1).history] == ["U1", "U2", "U5"]
    assert [record.fields["block"] for record in dataset.load(1).history] == ["1", "1", "2"]
    assert dataset.load(0).history == dataset.load(1).history[:2], (
        "a record does not change with later messages"
    )


@pytest.mark.parametrize("column", COLUMNS)
def test_missing_column_lists_those_found(tmp_path: Path, column: str) -> None:
    broken = row("q1", TALK, 6)
    del broken[column]
    message = refused(write(tmp_path, [broken], [TALK]))
    assert f"lacks the column {column}" in message and ", ".join(broken) in message


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("end_index_in_shared_context", "six", "is not a whole number"),
        ("correct_answer", "b", "not one of (a), (b), (c), (d)"),
        ("distance_to_ref_proportion_in_context", "0.35", "is not a percentage"),
        ("shared_context_id", "feed", "conversation feed, which question q1 refers to, is missing"),
    ],
)
def test_broken_cells_name_question_and_column(
    tmp_path: Path, column: str, value: str, problem: str
) -> None:
    message = refused(
        write(tmp_path, [row("q0", TALK, 6), row("q1", TALK, 6, **{column: value})], [TALK])
    )
    assert problem in message and "q1" in message


def test_broken_files_say_where(tmp_path: Path) -> None:
    folder = write(tmp_path, [row("q1", TALK, 6)], [TALK])
    contexts, table = folder / "shared_contexts_32k.jsonl", folder / "questions_32k.csv"
    whole = contexts.read_bytes()
    contexts.write_bytes(whole[:120])
    assert "is broken" in refused(folder)
    contexts.write_bytes(b"[]\n")
    assert "line 1 does not begin with" in refused(folder)
    contexts.write_bytes(whole + whole)
    assert "line 2: the id" in refused(folder)
    contexts.write_bytes(whole.replace(b'"role": "assistant"', b'"role": "tool"'))
    assert "message 3 lacks a role" in refused(folder)
    contexts.write_bytes(whole)
    table.write_bytes(table.read_bytes() + b"0,\xff")
    assert "not a whole CSV file" in refused(folder)
    table.write_text(",".join(COLUMNS) + "\r\n")
    assert "no questions" in refused(folder)


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    assert "q1 is not" in refused(write(tmp_path, [row("q1", TALK, 6), row("q1", TALK, 4)], [TALK]))


def test_missing_files_and_unknown_splits_list_the_remedy(tmp_path: Path) -> None:
    message = refused(tmp_path)
    assert (
        "personabench download personamem --split 32k" in message
        and str(tmp_path / "personamem") in message
    )
    with pytest.raises(UsageError, match="choose one of 32k, 128k, 1M"):
        PersonaMem().open("64k", tmp_path)
    with pytest.raises(UsageError, match="example data has only the split 32k"):
        PersonaMem().open("1M", None)


def test_acceptance_14_a_repeated_header_is_skipped_and_counted(tmp_path: Path) -> None:
    header = {name: name for name in COLUMNS}
    dataset = opened(write(tmp_path, [row("q1", TALK, 6), header, row("q2", TALK, 6)], [TALK]))
    assert len(dataset.index()) == 2 and dataset.warnings[0].startswith("1 repeated header")


def test_a_gold_text_under_two_letters_is_counted(tmp_path: Path) -> None:
    twice = cell((OPTIONS[0], OPTIONS[1], f"{OPTIONS[1]} ", OPTIONS[3]))
    folder = write(tmp_path, [row("q1", TALK, 6, all_options=twice)], [TALK])
    for accept, worth in ((False, 0.0), (True, 1.0)):
        task = PersonaMem(PersonaMem.Params(accept_duplicate_gold=accept))
        dataset = task.open("32k", folder)
        assert any("has two letters in 1 (q1)" in warning for warning in dataset.warnings)
        sample = dataset.load(0)
        assert task.measure(task.parse("(c)", sample, "official"), sample)["accuracy"] == worth
        assert task.measure(task.parse("(b)", sample, "official"), sample)["accuracy"] == 1.0


def test_unknown_types_are_their_own_bucket_with_a_warning(tmp_path: Path) -> None:
    task = PersonaMem()
    rows = [row("q1", TALK, 6), row("q2", TALK, 6, question_type="sing_along")]
    dataset = task.open("32k", write(tmp_path, rows, [TALK]))
    assert any("sing_along" in warning for warning in dataset.warnings)
    assert [metric.name for metric in task.metrics] == [
        "accuracy",
        "macro",
        "recall_user_shared_facts",
        "sing_along",
    ]


def test_acceptance_9_seeded_orders_are_the_same_everywhere() -> None:
    assert order_options("0", "q1") == (2, 0, 1, 3)
    assert order_options("1", "q1") == (3, 0, 2, 1)


def test_acceptance_9_gold_follows_its_position_and_prefixes_are_renewed(tmp_path: Path) -> None:
    equal = cell((OPTIONS[1], OPTIONS[1], OPTIONS[2], OPTIONS[3]))
    folder = write(tmp_path, [row("q1", TALK, 6, all_options=equal)], [TALK])
    sample = opened(folder, shuffle="0", template="lines").load(0)
    assert sample.references[0] == "(c)", "position 1 is shown third"
    options = sample.input.split("\n")[-4:]
    assert options == [
        f"(a) {OPTIONS[2]}",
        f"(b) {OPTIONS[1]}",
        f"(c) {OPTIONS[1]}",
        f"(d) {OPTIONS[3]}",
    ]
    assert sample.references == ("(c)",), "references are gold answers and nothing else"
    assert '"order":[2,0,1,3]' in sample.hidden["facts"], "the permutation is kept"
    as_published = opened(folder).load(0)
    assert as_published.input.endswith(equal) and as_published.references[0] == "(b)"


def test_rotate4_asks_every_question_in_four_orders(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, [row("q1", TALK, 6)], [TALK]), shuffle="rotate4")
    samples = list(dataset.samples())
    assert [sample.id for sample in samples] == ["q1@0", "q1@1", "q1@2", "q1@3"]
    assert [sample.references[0] for sample in samples] == ["(b)", "(a)", "(d)", "(c)"]
    with pytest.raises(ValueError, match="rotate4 or a whole number"):
        PersonaMem.Params(shuffle="often")


def test_acceptance_11_views_hold_neither_gold_nor_type_nor_topic_nor_distance(
    tmp_path: Path,
) -> None:
    marked = row(
        "q1",
        TALK,
        6,
        topic="zz-topic",
        distance_to_ref_in_tokens=987654,
        distance_to_ref_proportion_in_context="77.7%",
    )
    task = PersonaMem()
    dataset = task.open("32k", write(tmp_path, [marked], [TALK]))
    view = repr(dataset.load(0).view())
    for hidden in ("zz-topic", "987654", "0.777", "recall_user", "references=('"):
        assert hidden not in view
    assert "zz-topic" in repr(dataset.load(0))
    task_state = repr({name: value for name, value in vars(task).items() if name != "metrics"})
    assert "zz-topic" not in task_state and "q1" not in task_state, (
        "the task, which methods may ask, holds no data"
    )


def test_acceptance_12_population_has_a_persona_once_whatever_the_contexts(tmp_path: Path) -> None:
    talks = [talk("SUUASU", mark) for mark in "abc"]
    small, large = sorted(talks[:2], key=context_id)
    rows = [
        row("q1", large, 6, persona_id="7"),
        row("q2", small, 3, persona_id="7"),
        row("q3", small, 5, persona_id="7"),
        row("q4", talks[2], 6, persona_id="8"),
    ]
    users = {user.id: user for user in opened(write(tmp_path, rows, talks)).population()}
    assert list(users) == ["7", "8"]
    assert [record.response[1:] for record in users["7"].history] == ["U1", "U2"]
    assert users["7"].history[0].response[0] == small[1]["content"][6], (
        "the smallest id, at its largest used cut"
    )


def test_official_questions_keep_speakers_and_retrieval_drops_them(tmp_path: Path) -> None:
    question_row = row("q1", TALK, 6, user_question_or_message="User: Where now?")
    sample = opened(write(tmp_path, [question_row], [TALK])).load(0)
    assert sample.input.startswith("User: Where now?\n\n") and sample.stimulus == "Where now?"
    assert OPTIONS[0] not in (sample.stimulus or "")


def test_sample_has_the_promised_shape() -> None:
    dataset = PersonaMem().open("32k", None)
    assert dataset.sample and not dataset.warnings and not dataset.defects
    per_persona: dict[str, list[str]] = defaultdict(list)
    for question in dataset.questions:
        per_persona[question.persona].append(question.type)
    assert len(per_persona) >= 12
    for types in per_persona.values():
        assert len(types) >= 4
    assert len({question.type for question in dataset.questions}) == 7
    blocks = {
        user.id: {record.fields["block"] for record in user.history}
        for user in dataset.population()
    }
    assert all(len(scores) >= 3 for scores in blocks.values())
    assert set(Counter(question.gold for question in dataset.questions).values()) == {
        len(dataset.questions) // 4
    }
    assert len({question.end for question in dataset.questions if question.persona == "0"}) > 1, (
        "cuts differ"
    )


def test_sample_gives_nothing_to_rules_of_length() -> None:
    scores = score_rules(PersonaMem().open("32k", None).questions)
    for name in ("longest-option", "shortest-option"):
        first, split = scores[name], scores[f"{name}, tie-split"]
        assert isinstance(first, Share) and 0.18 <= first.accuracy <= 0.32
        assert isinstance(split, float) and 0.18 <= split <= 0.32
