"""Refine a draft by agents that a planner chooses: facts, persona and coherence.

A responder drafts the answer, a planner chooses the agents and says why, and each in turn rewrites
the last response with material of its own.  Where the answer is a choice, its reasons are refined
with it.  Nothing is learnt from the history beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from personabench import Context, Message, Method, PromptFile, Record, Sample
from personabench.api.method import retrieval_needs
from personabench.methods.memory_parts import (
    TEXT,
    list_schema,
    object_schema,
    read_object,
    read_rows,
    read_text,
)
from personabench.methods.parsed_reply import complete_parsed
from personabench.methods.rpm.replies import find_marked_answer

PROMPTS = PromptFile(__file__, "mara.prompts.toml")
AGENTS = ("fact", "persona", "coherence")
SCHEMA = object_schema(
    plan=list_schema(
        object_schema(agent={"type": "string", "enum": list(AGENTS)}, reason=TEXT), len(AGENTS)
    )
)

# A reply about the response in place of a response.
_META = re.compile(
    r"(sure|certainly|okay|of course|here is|here's|here are|no (changes?|refinements?|revision)|"
    r"(the|this) (previous |current |given )?(response|answer|draft|reply) "
    r"(is|was|does|looks|seems|needs|already|has been))\b",
    re.IGNORECASE,
)


class Step(NamedTuple):
    """An agent of the plan, and the planner's reason for it."""

    agent: str
    reason: str


class Form(NamedTuple):
    """The form of the responses of one question.

    `contract` replaces the task's own; empty if a response is the answer alone.
    """

    contract: str
    answer: str
    max_tokens: int


class Mara(Method):
    """Draft an answer, and have agents for facts, persona and coherence refine it by a plan."""

    name = "mara"
    paper = "Adaptive Multi-Agent Response Refinement in Conversational Systems, arXiv 2511.08319"
    designed_for = ()
    needs = ("history",)
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """k: records that are the persona; retriever, embedder: as in rag.

        recent: newest turns or records that are the conversation so far.
        bad_plan: after a plan that cannot be read, all agents work in order, or the draft stays.
        plan_max_tokens: maximum tokens of the plan.
        rationale_max_tokens: maximum tokens of the reasons that are refined together with a choice;
            0: the choice alone is refined.
        """

        k: int = 8
        retriever: str = "bm25"
        embedder: str = "wordllama"
        recent: int = 4
        bad_plan: Literal["all", "draft"] = "all"
        plan_max_tokens: int = 256
        rationale_max_tokens: int = 128

    def requirements(self) -> set[str]:
        return super().requirements() | retrieval_needs(self.params.retriever)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        p = self.params
        persona = await ctx.retrieve(sample, p.k, p.retriever, embedder=p.embedder)
        form = self._word_form(sample, ctx)
        if form.contract:
            messages = ctx.render(sample, persona, contract=form.contract)
            reply = await ctx.complete(messages, max_tokens=form.max_tokens)
            response = reply.text.strip()
        else:
            response = await ctx.answer(sample, persona)

        plan = await self._plan(sample, response, ctx)
        ctx.flag("plan_steps", len(plan))
        for step in plan:
            response = await self._refine(step, sample, persona, response, form, ctx)
        return _read_choice(response, form, ctx)

    def _word_form(self, sample: Sample, ctx: Context) -> Form:
        """A choice is refined together with its reasons, any other answer alone."""
        extra = self.params.rationale_max_tokens
        if not sample.choices or not extra:
            return Form("", ctx.task.words.answer_form, ctx.answer_tokens)
        answer_form = ctx.part(PROMPTS, "reasoned_choice")
        contract = ctx.part(PROMPTS, "request_of_choice")
        return Form(contract, answer_form, ctx.answer_tokens + extra)

    def _list_turns(self, sample: Sample, ctx: Context) -> tuple[Record, ...]:
        """The conversation so far, newest first; the newest records where there is none."""
        exchanges = ctx.task.exchanges(sample)
        turns = sample.history if exchanges is None else tuple(exchanges)
        return tuple(turns[::-1][: self.params.recent])

    async def _plan(self, sample: Sample, draft: str, ctx: Context) -> Sequence[Step]:
        """The agents in order; by `bad_plan` after two plans that cannot be read."""

        def build(newest_first: Sequence[Record]) -> Sequence[Message]:
            turns = "\n\n".join(_describe_turn(turn, ctx) for turn in reversed(newest_first))
            return ctx.prompt(
                PROMPTS, "plan", request=sample.input, turns=turns or "–", draft=draft or "…"
            )

        max_tokens = self.params.plan_max_tokens
        messages = ctx.fit(build, self._list_turns(sample, ctx), max_tokens)
        steps = await complete_parsed(
            messages, _read_plan, ctx, max_tokens=max_tokens, schema=SCHEMA, flag="plan_unparsed"
        )
        if steps is not None:
            return _drop_unusable(steps, ctx)
        ctx.flag("bad_plan")
        agents = AGENTS if self.params.bad_plan == "all" else ()
        return [Step(agent, "") for agent in agents]

    async def _refine(
        self,
        step: Step,
        sample: Sample,
        persona: Sequence[Record],
        previous: str,
        form: Form,
        ctx: Context,
    ) -> str:
        """The agent's response, or the previous one if it is none."""
        records, notes = self._choose_material(step.agent, sample, persona, ctx)
        reason = f" {step.reason}" if step.reason else ""
        request = ctx.part(PROMPTS, step.agent, reason=reason, answer_form=form.answer)

        def build(shown: Sequence[Record]) -> Sequence[Message]:
            # The task's own request, so that the form of the answer is stated to every agent.
            opening = ctx.word(sample, shown, notes, form.contract).messages
            return (*opening, Message("assistant", previous or "…"), Message("user", request))

        messages = ctx.fit(build, records, form.max_tokens)
        reply = await ctx.complete(messages, max_tokens=form.max_tokens)
        refined = reply.text.strip()
        if not refined or (_META.match(refined) and not _META.match(previous)):
            ctx.flag("refinement_empty")
            return previous
        if ctx.task.parse(_split_answer(refined, form), sample, "lenient") is None:
            ctx.flag("refinement_unreadable")
            return previous
        return refined

    def _choose_material(
        self, agent: str, sample: Sample, persona: Sequence[Record], ctx: Context
    ) -> tuple[Sequence[Record], str]:
        """An agent's material beside the question: records, best first, and notes."""
        if agent == "persona":
            return persona, ""
        if agent == "coherence":
            if ctx.task.exchanges(sample) is None:
                return self._list_turns(sample, ctx), ""
            turns = [_describe_turn(turn, ctx) for turn in self._list_turns(sample, ctx)]
            return (), "\n\n".join(reversed(turns))
        return (), ctx.task.facts(sample.attributes)


def _split_answer(response: str, form: Form) -> str:
    """The choice after the reasons; the whole response if it has no mark."""
    marked = find_marked_answer(response) if form.contract else None
    return marked[1] if marked else response


def _read_choice(response: str, form: Form, ctx: Context) -> str:
    """The answer to return; choices without reasons are counted."""
    answer = _split_answer(response, form)
    if form.contract and answer == response:
        ctx.flag("rationale_missing")
    return answer


def _describe_turn(turn: Record, ctx: Context) -> str:
    if "reply" not in turn.fields:
        return ctx.task.describe(turn)
    lines = [turn.stimulus or "", turn.fields["reply"], turn.response]
    return "\n".join(line for line in lines if line)


def _read_plan(reply: str) -> list[Step] | None:
    """The steps of a JSON reply, known or not; None without a list of steps."""
    plan = read_object(reply)
    listed = None if plan is None else plan.get("plan")
    if not isinstance(listed, list):
        return None
    steps = [
        Step(read_text(row.get("agent")).lower(), read_text(row.get("reason")))
        for row in read_rows(listed)
    ]
    # A list of names alone is a plan without reasons.
    steps += [Step(name.strip().lower(), "") for name in listed if isinstance(name, str)]
    return steps if len(steps) == len(listed) else None


def _drop_unusable(steps: Sequence[Step], ctx: Context) -> list[Step]:
    """The first step of each known agent."""
    plan: dict[str, Step] = {}
    for step in steps:
        if step.agent not in AGENTS:
            ctx.flag("plan_unknown_agent")
        elif step.agent in plan:
            ctx.flag("plan_repeated_agent")
        else:
            plan[step.agent] = step
    return list(plan.values())
