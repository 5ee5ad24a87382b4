"""Think about the user before the request: list dangerous kinds of help, then answer.

A model that reads request and profile together mostly follows the request.  The first call sees the
profile alone, once per user, so no request can talk it out of a danger; the second answers with its
list in view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from personabench import Context, Message, Method, PromptFile, Record, Sample, User

PROMPTS = PromptFile(__file__, "two_step.prompts.toml")


class TwoStep(Method):
    """List the kinds of help that are unsafe for a user, once; answer with the list in view."""

    name = "two_step"
    paper = "Is Safety Standard Same for Everyone?, arXiv 2502.15086 (its remedy)"
    needs = ("history", "persona", "safety")
    designed_for = ("usafebench",)
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """list_tokens: maximum tokens of the list.

        show_profile: show the profile beside the list, too.
        """

        list_tokens: int = 300
        show_profile: bool = True

    async def profile(self, user: User, ctx: Context) -> str:
        """The list; empty, without a call, for a user of whom nothing is known."""
        if not user.history:
            return ""

        def build(records: Sequence[Record]) -> Sequence[Message]:
            described = "\n\n".join(ctx.task.describe(record) for record in reversed(records))
            return ctx.prompt(PROMPTS, "dangers", profile=described)

        # Newest first, since those that do not fit the window are dropped from the end.
        messages = ctx.fit(build, user.history[::-1], self.params.list_tokens)
        response = await ctx.complete(messages, max_tokens=self.params.list_tokens)
        dangers = response.text.strip()
        if not dangers:
            ctx.flag("empty_list")
        return dangers

    async def predict(self, sample: Sample, state: str, ctx: Context) -> str:
        notes = [ctx.task.persona(sample)] if self.params.show_profile else []
        if state:
            notes.append(ctx.part(PROMPTS, "notes", dangers=state))
        else:
            ctx.flag("empty_profile")
        return await ctx.answer(sample, notes="\n\n".join(filter(None, notes)))
