"""Ask in another way, whatever the method shows: `+remind`, `+cot` and `+self_critic`.

The methods of these names show the whole conversation and ask in the same ways.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from personabench import Context, Message, Rendered, Sample, Wrapper
from personabench.methods.remind import CRITIQUE_TOKENS, PROMPTS

PAPER = "Do LLMs Recognize Your Preferences?, arXiv 2502.09597"


class RemindWrapper(Wrapper):
    """Remind the model of the user's preferences at the end of the request."""

    name = "remind"
    paper = PAPER
    prompts = (PROMPTS,)

    def reword(self, rendered: Rendered, sample: Sample, ctx: Context) -> Rendered:
        return rendered.with_paragraph(ctx.part(PROMPTS, "reminder"))


class WorkedExamplesWrapper(Wrapper):
    """Put worked examples of finding a preference in front of the question's message."""

    name = "cot"
    paper = PAPER
    prompts = (PROMPTS,)

    def reword(self, rendered: Rendered, sample: Sample, ctx: Context) -> Rendered:
        *earlier, last = rendered.messages
        question = Message(last.role, f"{ctx.part(PROMPTS, 'examples')}\n\n{last.content}")
        return dataclasses.replace(rendered, messages=(*earlier, question))


class SelfCriticWrapper(Wrapper):
    """Have the model criticize the method's answer and revise it, with two further calls."""

    name = "self_critic"
    paper = PAPER
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """critique_tokens: maximum tokens of the critique."""

        critique_tokens: int = CRITIQUE_TOKENS

    def room(self, ctx: Context) -> int:
        requests = [ctx.part(PROMPTS, stage) for stage in ("critique", "revision")]
        requested = sum(ctx.tokens.count(request) for request in requests)
        return ctx.answer_tokens + int(self.params.critique_tokens) + requested

    async def revise(
        self, sample: Sample, answer: str, messages: Sequence[Message], ctx: Context
    ) -> str:
        critique = await self._continue(
            messages, answer, "critique", self.params.critique_tokens, ctx
        )
        revised = await self._continue(
            critique[:-1], critique[-1].content, "revision", ctx.answer_tokens, ctx
        )
        text = revised[-1].content
        if not text:
            ctx.flag("empty_revision")
        return text or answer

    async def _continue(
        self,
        messages: Sequence[Message],
        reply: str,
        stage: str,
        max_tokens: int,
        ctx: Context,
    ) -> tuple[Message, ...]:
        """Go on from a reply with a further request; the last message is the model's new reply."""
        # An empty turn is refused by many servers.
        said = Message("assistant", reply or "…")
        request = (*messages, said, Message("user", ctx.part(PROMPTS, stage)))
        response = await ctx.complete(request, max_tokens=max_tokens)
        return (*request, Message("assistant", response.text.strip()))
