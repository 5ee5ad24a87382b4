"""Likelihood of a given reply, from a server that reports log-probabilities of prompts (vLLM).

A likelihood request has `max_tokens` 0 and an assistant message as its last.  The server gets two
requests: the conversation with the reply, and the conversation up to the start of the reply.
Tokens after their common prefix are the reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personabench.errors import BackendError
from personabench.types import Request, Response, Usage


def is_likelihood_request(request: Request) -> bool:
    """Whether a request is for the likelihood of its last message."""
    return request.max_tokens == 0


def likelihood_bodies(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build the two bodies to send: with the reply at the end of the prompt, and without it."""
    base = {name: value for name, value in body.items() if name not in ("logprobs", "top_logprobs")}
    # vLLM rejects a limit of 0 tokens, so one is generated and ignored.
    base["max_tokens"] = 1
    base["prompt_logprobs"] = 0

    with_reply = {
        **base,
        # The chat template must not close the assistant's message or open another.
        "add_generation_prompt": False,
        "continue_final_message": True,
    }
    without_reply = {**base, "messages": body["messages"][:-1]}
    return with_reply, without_reply


def likelihood_response(
    request: Request, with_reply: Response, without_reply: Response
) -> Response:
    """Build a response of the last message with the log-probability of each of its tokens.

    Raises:
        BackendError: the server reported none.
    """
    prefix_length = 0
    pairs = zip(with_reply.logprobs, without_reply.logprobs, strict=False)
    for token, prompt_token in pairs:
        if token["id"] != prompt_token["id"]:
            break
        prefix_length += 1

    tokens = with_reply.logprobs[prefix_length:]
    if not tokens or not prefix_length:
        raise BackendError(
            "the server reported no log-probabilities of the prompt, "
            "which are needed for the likelihood of a reply"
        )

    input_tokens = with_reply.usage.input_tokens + without_reply.usage.input_tokens
    return Response(
        request.messages[-1].content,
        usage=Usage(input_tokens),
        logprobs=tokens,
        model=with_reply.model,
    )


def prompt_tokens(reported: list[Any] | None) -> tuple[Mapping[str, Any], ...]:
    """Read a prompt's tokens as vLLM reports them: id, text and log-probability."""
    tokens = []
    for alternatives in reported or ():
        # The first token has no predecessor, and so no entry.
        if not alternatives:
            tokens.append({"id": "", "token": "", "logprob": 0.0})
            continue

        # The actual token comes first, before likelier ones.
        token_id, details = next(iter(alternatives.items()))
        tokens.append(
            {
                "id": token_id,
                "token": details.get("decoded_token", ""),
                "logprob": details.get("logprob"),
            }
        )
    return tuple(tokens)
