"""How likely a given reply is, token by token, from a server that reports log-probabilities of its prompts (vLLM).

A request with no tokens to answer in, whose last message is the assistant's, asks for that.  The server is asked for
the conversation with the reply in it and for the conversation up to where the reply would begin; what both have in
common is not the reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personabench.errors import BackendError
from personabench.types import Request, Response, Usage


def is_likelihood_request(request: Request) -> bool:
    """Whether a request is for the likelihood of its last message."""
    return request.max_tokens == 0


def bodies(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to ask a server for: the prompt that ends with the reply, and the prompt that the reply would follow."""
    plain = {
        name: value for name, value in body.items() if name not in ("logprobs", "top_logprobs")
    }
    plain |= {"max_tokens": 1, "prompt_logprobs": 0}
    whole = {**plain, "add_generation_prompt": False, "continue_final_message": True}
    return whole, {**plain, "messages": body["messages"][:-1]}


def reply(request: Request, whole: Response, start: Response) -> Response:
    """The last message as a response, with the log-probability of each of its tokens.

    Raises:
        BackendError: the server reported none.
    """
    common = 0
    for one, other in zip(whole.logprobs, start.logprobs, strict=False):
        if one["id"] != other["id"]:
            break
        common += 1
    tokens = whole.logprobs[common:]
    if not tokens or not common:
        raise BackendError(
            "the server reported no log-probabilities of the prompt, which decide how likely a reply is"
        )
    spent = Usage(whole.usage.input_tokens + start.usage.input_tokens)
    return Response(request.messages[-1].content, usage=spent, logprobs=tokens, model=whole.model)


def tokens_of(reported: list[Any] | None) -> tuple[Mapping[str, Any], ...]:
    """A prompt's tokens as a server reports them, each an id with the log-probability it had; the first has none."""
    found = []
    for place in reported or ():
        name, told = next(iter(place.items())) if place else ("", {"logprob": 0.0})
        found.append(
            {"id": name, "token": told.get("decoded_token", ""), "logprob": told["logprob"]}
        )
    return tuple(found)
