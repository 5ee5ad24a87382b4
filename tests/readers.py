# ruff: noqa: SLF001 - many readers are private to their module
"""Every reader of model output, of servers' words and of texts in files, as a function of a text.

A reader that is added to the package is added here, and `test_linear_readers` feeds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from personabench.api import defaults, inquiry, prompts
from personabench.errors import visible
from personabench.leaderboard import formats
from personabench.methods import (
    cicl,
    compsum,
    drp,
    eragent,
    fermi,
    hyperalign,
    k_lamp,
    raise_,
    summary,
    trivial,
)
from personabench.methods.cipher import prompts as cipher
from personabench.methods.dpl import prompts as dpl
from personabench.methods.rpm import factors, replies
from personabench.metrics import edits, labels, private_qa, ratings, scripts, text
from personabench.metrics.judges import (
    aspects,
    bespoke,
    custom_rubric,
    faireval,
    personafeedback,
    rubrics,
    similarity,
    verbal_certainty,
)
from personabench.models import probe, reply, usage
from personabench.models.backends import redaction, refusals, status, windows
from personabench.models.backends.dialect import Dialect, unfenced
from personabench.retrieval import tokenizers
from personabench.tasks import lampqa
from personabench.tasks.aloe import judging as aloe
from personabench.tasks.aloe import wording as aloe_wording
from personabench.tasks.lamp import forms, records, scoring
from personabench.tasks.lampqa import judging as lampqa_judging
from personabench.tasks.locomo import judging as locomo
from personabench.tasks.longmemeval import judging as longmemeval
from personabench.tasks.penguin import files as penguin_files
from personabench.tasks.penguin import judging as penguin
from personabench.tasks.personamem import scoring as personamem
from personabench.tasks.personamem_v2 import files as personamem_v2_files
from personabench.tasks.personamem_v2 import judging as personamem_v2_judging
from personabench.tasks.personamem_v2 import scoring as personamem_v2
from personabench.tasks.prefdisco import conversation, grading, wording
from personabench.tasks.prefdisco.sources import Problem
from personabench.tasks.prefeval import judging as prefeval
from personabench.tasks.prelude import judging as plume
from personabench.tasks.prelude import rules, user
from personabench.tasks.restraint import cases as restraint_cases
from personabench.tasks.restraint import judging as restraint
from personabench.tasks.reviews import wording as reviews
from personabench.tasks.usafebench import judging as usafebench
from personabench.types import moment

Reader = Callable[[str], Any]


def _final(content: str) -> str:
    ctx: Any = SimpleNamespace(
        task=SimpleNamespace(words=SimpleNamespace(response="reply")), flag=lambda name: None
    )
    return cipher.read_final(content, ctx)


def _selection(content: str) -> Any:
    return rubrics.Rubric([rubrics.Criterion("r1", "Is it?")])._read_selection(content)


def _refusal(content: str) -> None:
    with suppress(Exception):
        refusals.read_refusal(content, Dialect(), {"messages": [], "temperature": 0.5})
    refusals._pointed_fields(content)
    refusals._only_value(content)


def _rules(content: str) -> str:
    return rules.satisfy(content, rules.parse_rules(["bullet points", "at most 5 words"]))


OPTIONS = Problem("Which?", {"A": "one", "B": "two"}, "A")
RUBRIC = custom_rubric.Rubric({"r1": "Is it?"})
RESULT = Problem("How many?", answer="12")
READERS: Mapping[str, Reader] = {
    # Replies of models
    "reply.split_reply": reply.split_reply,
    "reply.parse_finish": reply.parse_finish,
    "reply.unfenced": unfenced,
    "text.strip_chatter": text.strip_chatter,
    "ratings.find_rating": lambda content: ratings.find_rating(content, 1, 5),
    "labels.find_label": lambda content: labels.find_label(content, ("a", "comedy", "a b")),
    "defaults.parse_letter": lambda content: defaults._parse_option(content, ("x", "y"), True),
    "defaults.parse_rating": lambda content: defaults._parse_rating(content, ("1", "5"), True),
    # Methods
    "cipher.read_phrase": cipher.read_phrase,
    "cipher.read_final": _final,
    "dpl.strip_tag": dpl.strip_tag,
    "cicl.read_answer": cicl.read_answer,
    "compsum.is_complete": compsum.is_complete,
    "drp.read_rows": lambda content: list(drp._read_rows(content)),
    "rpm.find_json": replies.find_json,
    "rpm.find_marked_answer": replies.find_marked_answer,
    "rpm.to_whole_number": replies.to_whole_number,
    "rpm.tokens": factors._tokens,
    "raise.read_reward": raise_.read_reward,
    "raise.rating": lambda content: raise_._RATING.search(content),
    "inquiry.read_inquiry": inquiry.read_inquiry,
    "hyperalign.read_hypotheses": hyperalign.read_hypotheses,
    "hyperalign.read_verdicts": lambda content: hyperalign.read_verdicts(content, 5),
    "fermi.read_prompts": fermi.read_prompts,
    "eragent.read_profile": eragent.read_profile,
    "eragent.read_rewrite": eragent.read_rewrite,
    "eragent.read_label": eragent.read_label,
    "k_lamp.find_entities": lambda content: k_lamp.find_entities([content]),
    "summary.label": lambda content: summary._LABEL.sub("", content, count=1),
    "trivial.words": trivial._words,
    # Judges
    "faireval.read_scores": faireval.read_scores,
    "verbal_certainty.read_choice": verbal_certainty.read_choice,
    "similarity.read_score": similarity.read_score,
    "rubrics.read_answers": lambda content: rubrics.read_answers(content, ["r1"]),
    "rubrics.read_selection": _selection,
    "personafeedback.read_choice": personafeedback.read_choice,
    "aspects.read_aspects": aspects.read_aspects,
    "aspects.read_matches": lambda content: aspects.read_matches(content, 2, 2, ["content"]),
    "bespoke.read_grades": lambda content: bespoke.read_grades(content, ["r1"]),
    "bespoke.read_entailment": bespoke.read_entailment,
    "bespoke.split_claims": lambda content: bespoke.split_claims([content]),
    "custom_rubric.read_scores": lambda content: custom_rubric.read_scores(content, RUBRIC),
    "aloe.read_score": aloe.read_score,
    "lampqa.read_score": lampqa_judging.read_score,
    "locomo.read_verdict": locomo.read_verdict,
    "longmemeval.read_verdict": longmemeval.read_verdict,
    "prefeval.read_answer": prefeval.read_answer,
    "penguin.read_scores": penguin.read_scores,
    "plume.read_degree": plume.read_degree,
    "plume.read_score": plume.read_score,
    "restraint.read_answers": lambda content: restraint.read_answers(content, 2),
    "usafebench.read_verdict": usafebench.read_verdict,
    "personamem_v2.read_verdict": personamem_v2_judging.read_verdict,
    "prefdisco.parse_grade": grading.parse_grade,
    "prefdisco.compare_letter": lambda content: grading.compare_result(OPTIONS, content),
    "prefdisco.compare_result": lambda content: grading.compare_result(RESULT, content),
    # Tasks
    "aloe.clean_message": aloe_wording.clean_message,
    "lampqa.read_answer": lampqa.read_answer,
    "prefdisco.parse_json_object": wording.parse_json_object,
    "prefdisco.parse_reply": conversation.parse_reply,
    "lamp.parse_label": lambda content: scoring.parse(
        content, forms.FORMS["lamp1"].labels, "category", "lenient"
    ),
    "lamp.parse_rating": lambda content: scoring.parse(content, (), "ordinal", "lenient"),
    "lamp.parse_text": lambda content: scoring.parse(content, (), "text", "lenient"),
    "lamp.find_candidates": forms.find_candidates,
    "lamp.mail_file_name": records._MAIL_FILE_NAME.fullmatch,
    "lamp.date_key": records.date_key,
    "personamem.parse_strict": personamem.parse_strict,
    "personamem_v2.read_letter": personamem_v2.read_letter,
    "personamem_v2.repeats": lambda content: personamem_v2.repeats(content, content[::-1]),
    "personamem_v2.read_query": personamem_v2_files.read_query,
    "personamem_v2.read_snippet": personamem_v2_files.read_snippet,
    "penguin.normalise_name": penguin_files.normalise_name,
    "restraint.fold": restraint_cases.fold,
    "prelude.parse_decision": user.parse_decision,
    "prelude.clean_rewrite": user.clean_rewrite,
    "prelude.rules": _rules,
    "reviews.strip_tag": lambda content: reviews._TAG.sub("", content, count=1),
    # Scores and search
    "private_qa.split_words": private_qa.split_words,
    "scripts.split_words": scripts.split_words,
    "tokenizers.split_words": tokenizers.split_words,
    "edits.edit_cost": lambda content: edits.edit_cost(content[::2], content[1::2]),
    "types.moment": moment,
    # Words of servers, prompts and tables
    "usage.fewest_tokens": usage.fewest_tokens,
    "redaction.strike": redaction.Secrets(["sk-secret-key"]).strike,
    "probe.excerpt": probe._excerpt,
    "refusals.read_refusal": _refusal,
    "windows.refused_window": windows.refused_window,
    "status.inner_status": lambda content: status.inner_status({"message": content}),
    "status.stated_wait": status._stated_wait,
    "prompts.fill_slots": lambda content: prompts.fill_slots(content, {"a": "b"}),
    "formats.escape_cell": formats.escape_cell,
    "errors.visible": visible,
}

_UNITS = (
    *(" ", "\n", "\t\n", " \n", "a", "A", "1", "0.", "é", "漢", "*", "_", "`", "#", ">", "-", "--"),
    *("[", "]", "(", ")", "{", "}", "<", "[[", "]]", "[1", "{{a", "{a", '"', "'", "\\", ":", "/"),
    *(".", ",", "=", "$", "|", "***", "* ", "*a", "_a", " _a", "a ", "1 ", "1:", "(1", "-1"),
    *("{\n", '{"a":', '{"a": [', '{"a": "', '{"a": 1}\n', '[{"a":', '[{"a":\n', '{"\\', "[{}"),
    *("```", "```\n", "**", "a*", "*a ", "#a", "\n#", "\n*", "\n ", "\n>", "a\n", "~", "? ", "`a"),
    *("<think>", "</think>", "<think></think>", "analysis", "assistantfinal", "<|channel|>"),
    *("<|channel|>analysis", "<|start|>assistant", "<|channel|>final<|message|>", "<|end|>"),
    *("answer", "Answer: ", "answer ", "answer\n", "the answer is ", "final answer ", "option "),
    *("score", "Score: ", "Score of reply 1: ", "[[A]]", "[[A]] ", "]]\n[[", "r1: yes\n", "r1"),
    *("relevant", "relevant: ", "summary", "profile", "review ", "preference: ", "none ", "yes "),
    *("\\boxed{", "\\boxed{{", "\\boxed{}", "{{}", "action", "action: ask\n", "response", "1/"),
    *("1,", "12 ", "3 stars ", "1 to 5 ", "1 out of ", "here is the ", "title ", "the final "),
    *("which reference", '[1]: "', '" [2]: "', 'title "', ".txt", "a.txt ", "2020-", "param"),
    *('"message": "', '"param": "', '"loc": [', "maximum context length is ", "role ", "n_ctx"),
    *("try again in ", "retry after 1", "max_model_len", "only value ", "must be ", "{a} ", "~~"),
)
_OPENINGS = ("", "answer", "x", "[", "\\boxed{", "<think>", "action", "here is ", '"', "*a")
_ENDS = ("", "!", "\n", "1")


def nasty_texts(length: int) -> list[str]:
    """Repetitions of marks, between openings and ends that make a reader hope."""
    texts = []
    for number, unit in enumerate(_UNITS):
        repeated = (unit * (length // len(unit) + 1))[:length]
        # All pairs of an opening and an end would only take longer.
        for shift, opening in enumerate(_OPENINGS[:3]):
            texts.append(opening + repeated + _ENDS[(number + shift) % len(_ENDS)])
        opening = _OPENINGS[3 + number % (len(_OPENINGS) - 3)]
        texts.append(opening + repeated + "!")
    return texts
