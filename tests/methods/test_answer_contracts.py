"""Every request for an answer states the form of the answer once: the task's form or the method's.

A method whose replies have a form of their own replaces the task's contract, in every task.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from test_matrix import CELLS, EXTERNAL, TASKS, in_form, on

from personabench import Context, Message, Method, Rendered, Sample, Task, Vocabulary
from personabench.api import registry
from personabench.api.users import open_split
from personabench.api.wording import WordingName
from personabench.results.run_folder import RunFolder
from personabench.results.sample import describe_sample
from personabench.run import runner
from personabench.testing import trial
from personabench.types import Request

# Words of each task's own contract, in its input or beside it.
CONTRACTS = {
    "lamp1": ("without explanation", "Reply with [1] or [2] only"),
    "lamp2m": ("without further explanation", "Reply with one of the tags only"),
    "lamp2n": ("without further explanation", "Reply with one of the categories only"),
    "lamp3": ("without further explanation", "Reply with 1, 2, 3, 4 or 5 only"),
    "lamp4": ("Reply with the headline only",),
    "lamp5": ("Reply with the title only",),
    "lamp6": ("Reply with the subject line only",),
    "community_alignment": ("Answer with its letter and nothing else",),
    "personafeedback": ("Answer with its letter and nothing else",),
    "personalized_rewardbench": ("Answer with its letter and nothing else",),
    "bespoke": ("Reply with the answer only",),
    "personafeedback_gen": (),
    "personalllm_gen": (),
    "personalllm": ("Answer with its letter and nothing else",),
    "psoups": ("Answer with its letter and nothing else",),
    "prism": ("Answer with its letter and nothing else",),
    "lamp7": ("without any explanation", "Reply with the tweet only"),
    "lampqa": ("Reply with a fenced JSON object",),
    "locomo": ("Answer with a short phrase",),
    "longlamp_abstract": ("Answer with the text of the abstract and nothing else",),
    "longlamp_email": ("Answer with the text of the email and nothing else",),
    "longlamp_review": ("Answer with the text of the review and nothing else",),
    "longlamp_topic": ("Answer with the text of the post and nothing else",),
    "longmemeval": ("Answer in one or two sentences",),
    "personabench_qa": ("Answer with the names or values alone",),
    "personamem": ("<final_answer>",),
    "personamem_v2": ('Then end with "Final Answer: "',),
    "prefeval": ("Answer with its letter in tags",),
    "prefeval_gen": ("Reply within 300 words",),
    "plume_email": ("Answer with the email and nothing else",),
    "plume_summ": ("Answer with the summary and nothing else",),
    "prelude_email": ("Answer with the email and nothing else",),
    "prelude_summ": ("Answer with the summary and nothing else",),
    "restraint": ("Write what is requested and nothing else",),
    "reviews": ("Answer with the text of the review and nothing else",),
    "penguin": ("Reply to the user now.", "reply to the user."),
    "usafebench": ("Reply to the user.",),
    # The user's message is answered as it is, in any form.
    "aloe": (),
    "personamem_v2_gen": (),
    # Problems are answered in any form.
    "prefdisco": (),
    "prefdisco_warm": (),
}
OWN = {
    "rpm": 'Reply with a JSON object: "reasoning", and "answer"',
    "cicl": 'begin a new line with "Answer:"',
    "cot_edit": 'write "Final:"',
    "mara": 'write "Answer:" on a new line',
}
# Earlier answers show the form of free text, which small models follow better than words.
SHOWN_BY_TURNS = ("lamp4", "lamp5", "lamp6")


def read_text(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def list_requests(method: str, task: str, wording: WordingName) -> Sequence[Request]:
    roles = dict.fromkeys(registry.load_class("task", task)().roles, in_form)
    result = trial(
        method, task, limit=1, answer=in_form, wording=wording, roles=roles, scored=False
    )
    assert {prediction.error for prediction in result.predictions} == {None}
    return result.requests


def check_cell(method: str, task: str, wording: WordingName) -> None:
    """Check that no request has two contracts, and that those for an answer have one."""
    requests = list_requests(method, task, wording)
    contracts = [name_contract(request, task) for request in requests]
    if method == "mara" and not has_choices(task):
        # Reasons are refined with choices alone.
        assert "mara" not in contracts
    elif is_labelled(task) and method in OWN:
        # Guesses that equal the user's answers teach nothing, and the task's request is sent.
        assert set(contracts) & {"task", method}
    elif method in OWN:
        assert method in contracts
        assert contracts[-1] == method
    elif contracts and CONTRACTS[task]:
        has_turns = any(message.role == "assistant" for message in requests[-1].messages)
        is_shown = wording == "compact" and has_turns and task in SHOWN_BY_TURNS
        assert is_shown or "task" in contracts


def is_labelled(task: str) -> bool:
    return bool(registry.load_class("task", task).labels)


@cache
def has_choices(task: str) -> bool:
    opened: Task = registry.load_class("task", task)()
    dataset = open_split(opened, opened.default_split, None)
    return any(sample.choices for sample in dataset.samples())


def name_contract(request: Request, task: str) -> str:
    """Name the only contract of a request: the task's, a method's, or none.

    The task's may be stated in its input and after it.
    """
    text = read_text(request)
    contracts = [method for method, words in OWN.items() if words in text]
    if any(words in text for words in CONTRACTS[task]):
        contracts.append("task")
    assert len(contracts) <= 1, text
    return contracts[0] if contracts else ""


def test_the_contract_of_every_task_is_known() -> None:
    assert CONTRACTS.keys() == TASKS.keys()


# One of each kind of wording; the others run among the variants.
KINDS = (
    "lamp1",
    "lamp2m",
    "lamp4",
    "lamp7",
    "personabench_qa",
    "personamem",
    "personamem_v2",
    "prefeval",
    "prelude_summ",
    "reviews",
)


@pytest.mark.parametrize("method", OWN)
@pytest.mark.parametrize("task", KINDS)
def test_a_methods_contract_replaces_that_of_the_task(method: str, task: str) -> None:
    if method not in {cell.method for cell in on(task, "faithful", "adapted")}:
        pytest.skip("refused")
    check_cell(method, task, "full")


@pytest.mark.parametrize("method", ["none", "summary"])
@pytest.mark.parametrize("task", ["lamp2m", "lamp4", "personamem", "prelude_summ"])
@pytest.mark.parametrize("wording", ["full", "compact"])
def test_other_methods_send_the_tasks_contract(
    method: str, task: str, wording: WordingName
) -> None:
    if method not in {cell.method for cell in on(task, "faithful", "adapted")}:
        pytest.skip("refused")
    check_cell(method, task, wording)


@pytest.mark.parametrize(
    "wording",
    [
        pytest.param("full", marks=pytest.mark.variants),
        pytest.param("compact", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("method", "task"),
    [
        (cell.method, cell.task)
        for cell in CELLS
        if cell.fit != "refused" and cell.method not in EXTERNAL
    ],
)
def test_no_request_of_the_matrix_has_two_contracts(
    method: str, task: str, wording: WordingName
) -> None:
    check_cell(method, task, wording)


# Tasks of others


class Thinking(Method):
    """A method with a contract of its own."""

    name = "thinking"

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        form = ctx.task.words.answer_form
        contract = f'Think first. Then write "So:" and after it {form}.'
        reply = await ctx.complete(ctx.render(sample, contract=contract), max_tokens=100)
        return reply.text


class Films(Task):
    """A task with the defaults of a category."""

    name = "films"
    kind = "category"
    labels = ("good", "bad")
    words = Vocabulary(person="viewer", stimulus="film", response="verdict")

    def load(self, split: str, data: Any) -> Any:
        yield Sample(user_id="u", input="A film about a ferry.", references=("good",))


class OwnInstruction(Films):
    """A task whose form of an answer is stated in its instruction alone."""

    words = Vocabulary(
        person="viewer", stimulus="film", response="verdict", instruction="Reply in one word."
    )


class OwnRequest(Films):
    """A task with a request of its own, written before contracts could be replaced."""

    def render(self, sample: Sample, records: Any, notes: str, tokens: Any) -> Rendered:
        return Rendered((Message("user", f"{sample.input} {self.words.instruction}"),))


def final_text(task: Task) -> str:
    (request,) = trial(Thinking(), task).requests
    return read_text(request)


@pytest.mark.parametrize("cls", [Films, OwnRequest])
def test_a_default_instruction_is_replaced(cls: type[Task]) -> None:
    assert final_text(cls()) == (
        'A film about a ferry.\n\nThink first. Then write "So:" and after it one of good, bad.'
    )


def test_an_instruction_without_a_known_form_stays() -> None:
    text = final_text(OwnInstruction())
    assert "Reply in one word." in text
    assert text.endswith('write "So:" and after it one of good, bad.')


def test_the_form_of_an_own_instruction_can_be_named() -> None:
    class Named(OwnInstruction):
        words = Vocabulary(
            person="viewer",
            stimulus="film",
            response="verdict",
            instruction="Reply in one word.",
            answer_form="one word, good or bad",
        )

    assert final_text(Named()).endswith("and after it one word, good or bad.")
    assert "Reply in one word." not in final_text(Named())


@pytest.mark.variants
async def test_the_packaged_model_answers_under_a_methods_contract(tmp_path: Path) -> None:
    settings = ("cot_edit.k=1", "cot_edit.reasoning_max_tokens=24")
    chosen = runner.Options(
        ["cot_edit"],
        ["lamp4"],
        limit=1,
        results=tmp_path,
        assignments=[*settings, "task.layout=message"],
    )
    (outcome,) = await runner.run(chosen)
    prediction = next(RunFolder(outcome.folder).iter_predictions())
    assert prediction.error is None
    assert prediction.output

    shown = describe_sample(RunFolder(outcome.folder), prediction.sample_id, tmp_path)
    (request,) = shown["calls"][-1]["messages"]
    assert request["content"].startswith("About this author:\nWhat this author made of earlier")
    assert OWN["cot_edit"] in request["content"]
    assert "Reply with the headline only" not in request["content"]
