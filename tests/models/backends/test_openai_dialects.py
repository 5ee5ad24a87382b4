"""What APIs want beside the common core: Azure's address, other fields, headers, organisations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from fake_api import HEADER, SECRET, Server, completion, request, said, serving

from personabench.errors import BackendDown, Refused, UsageError
from personabench.models import backends
from personabench.models.backends import read_headers
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.chat_completion import other_model
from personabench.models.backends.openai import LOCAL, REMOTE, OpenAI
from personabench.models.backends.redaction import Secrets
from personabench.types import Response


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with serving(monkeypatch) as served:
        yield served


async def asked(server: Server, calls: int = 1, **options: Any) -> tuple[OpenAI, list[Response]]:
    """A backend after some calls; it is closed already."""
    made = OpenAI(BackendOptions(base_url=options.pop("base_url", server.url), **options))
    await made.identify()
    try:
        return made, [await made.complete(request(str(number)), "u") for number in range(calls)]
    finally:
        await made.aclose()


@pytest.mark.parametrize(
    ("status", "words", "remedy"),
    [
        (
            400,
            "Unsupported value: 'temperature' does not support 0",
            "--temperature 1 may be.*--omit-params temperature",
        ),
        (400, "Unsupported parameter: 'top_p'", "--top-p 1 may be.*--omit-params top_p"),
        (
            422,
            "body.seed: extra inputs are not permitted",
            "; --omit-params seed omits it, which makes a separate run",
        ),
    ],
)
async def test_refused_sampling_is_not_dropped_in_silence(
    server: Server, status: int, words: str, remedy: str
) -> None:
    server.replies = [said(status, words)]
    with pytest.raises(Refused, match=remedy):
        await asked(server)


async def test_what_is_omitted_is_not_sent_and_is_another_model(server: Server) -> None:
    made, _ = await asked(server, omit=("seed", "top_p"))
    assert not {"seed", "top_p"} & server.bodies[0].keys() and "temperature" in server.bodies[0]
    assert made.identity == {"kind": "api", "name": "tiny", "omit": "seed,top_p"}
    with pytest.raises(UsageError, match="--omit-params messages: only temperature, top_p, seed"):
        OpenAI(BackendOptions(omit=("messages",)))


async def test_azure(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-marker-1618033988")
    root = server.url.removesuffix("/v1")
    server.replies = [
        completion(model="gpt-4o-2024-08-06"),
        said(401, "key azure-marker-1618033988 is wrong"),
    ]
    made, (answer,) = await asked(
        server, base_url=root, model="my-deployment", api_version="2024-10-21"
    )
    assert server.paths == [
        "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    ]
    assert (
        server.heads[0]["api-key"] == "azure-marker-1618033988"
        and "Authorization" not in server.heads[0]
    )
    assert made.identity["name"] == "my-deployment" and answer.model == ""
    with pytest.raises(BackendDown, match=r"key \*\*\* is wrong"):
        await asked(server, base_url=root, model="my-deployment", api_version="2024-10-21")


async def test_azure_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url.removesuffix("/v1") + "/")
    await asked(server, base_url=None, model="d", api_version="v")
    assert server.paths == ["/openai/deployments/d/chat/completions?api-version=v"]
    assert server.heads[0]["api-key"] == SECRET


@pytest.mark.parametrize("options", [{"base_url": None, "model": "d"}, {"model": None}])
async def test_azure_needs_a_resource_and_a_deployment(
    server: Server, options: dict[str, Any]
) -> None:
    with pytest.raises(
        UsageError, match=r"--api-version needs --base-url .* and --model DEPLOYMENT"
    ):
        await asked(server, api_version="v", **options)


async def test_azure_needs_a_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match="set AZURE_OPENAI_API_KEY or OPENAI_API_KEY"):
        await asked(server, api_version="v", model="d")


async def test_organisation_project_and_headers_are_sent(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-marker")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-marker")
    server.replies = [completion(), said(400, "org-marker has no proj-marker")]
    headers = {"X-Team": HEADER, "Authorization": "Basic bWU6bWFya2Vy"}
    await asked(server, headers=headers)
    head = server.heads[0]
    assert (head["OpenAI-Organization"], head["OpenAI-Project"]) == ("org-marker", "proj-marker")
    assert (head["X-Team"], head["Authorization"]) == (HEADER, "Basic bWU6bWFya2Vy")
    with pytest.raises(Refused, match=r"\*\*\* has no \*\*\*"):
        await asked(server)


async def test_every_call_is_signed_as_the_first(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-marker")
    made = OpenAI(BackendOptions(base_url=server.url, headers={"X-Team": HEADER}))
    await made.identify()
    answers = [await made.complete(request("long " * size), "u") for size in (1, 500, 30)]
    await made.aclose()
    assert [answer.text for answer in answers] == ["a reply"] * 3
    lengths = [head.popone("Content-Length") for head in server.heads]
    assert len(set(lengths)) == 3 and server.heads[0] == server.heads[1] == server.heads[2]
    assert (
        server.heads[2]["Authorization"] == f"Bearer {SECRET}"
        and server.heads[2]["X-Team"] == HEADER
    )


def test_headers_are_read_and_never_repeated() -> None:
    assert read_headers(["X-Team: a: b", " Cookie :c=d"]) == {"X-Team": "a: b", "Cookie": "c=d"}
    for line in (HEADER, f"not a name: {HEADER}", f": {HEADER}"):
        with pytest.raises(
            UsageError, match="--header number 2 is not of the form 'Name: value'"
        ) as caught:
            read_headers(["X: y", line])
        assert HEADER not in str(caught.value)
    for value in (f"{HEADER}\r\nX: y", f"{HEADER}\u2019"):
        with pytest.raises(UsageError, match="--header X-Team holds a character") as caught:
            read_headers([f"X-Team: {value}"])
        assert HEADER not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("--rpm", {"rpm": 1.0}),
        ("--tpm", {"tpm": 1.0}),
        ("--api-version", {"api_version": "v"}),
    ],
)
def test_options_of_this_backend_are_refused_by_others(option: str, given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{option}: only with --backend openai, not scripted"):
        backends.create("scripted", BackendOptions(**given))


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        (f"key {SECRET}!", "key ***!"),
        ("token bWU6bWFya2Vy is old", "token *** is old"),
        ("provided: sk-ma*****4793.", "provided: ***"),
        ("a ** b and 2*3", "a ** b and 2*3"),
    ],
)
def test_secrets_are_struck_whole_in_words_and_half_masked(quoted: str, shown: str) -> None:
    assert Secrets([SECRET, "Basic bWU6bWFya2Vy", "abc"]).strike(quoted) == shown


def test_a_short_header_value_does_not_change_answers() -> None:
    answer = Response(f"a product of {SECRET}")
    cleaned = Secrets(["prod", SECRET]).clean(answer)
    assert cleaned.text == "a product of ***"


@pytest.mark.parametrize(
    ("wanted", "named", "other"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", False),
        ("gpt-4o-2024-08-06", "gpt-4o", False),
        ("gpt-4", "gpt-4-0613", False),
        ("openai/gpt-4o", "gpt-4o", False),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", False),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b-instruct", False),
        ("tiny", "/models/Tiny.gguf", False),
        ("tiny", None, False),
        ("gpt-4o", "gpt-4o-mini", True),
        ("gpt-4", "gpt-4.1-2025-04-14", True),
        ("llama-3-8b", "llama-3-70b", True),
        ("deepseek/deepseek-r1:free", "deepseek/deepseek-r1", False),
        ("meta-llama/Llama-3:novita", "llama-3", False),
        ("org/tiny/", "tiny", False),
        ("tiny", "C:\\models\\Tiny.gguf", False),
        ("llama3:8b", "llama3:70b", True),
    ],
)
def test_another_models_name_is_told_from_a_dated_one(
    wanted: str, named: str | None, other: bool
) -> None:
    assert other_model(wanted, named) == (named if other else "")


async def test_a_reply_in_another_models_name_says_so(server: Server) -> None:
    server.replies = [completion(model="tiny-2024-08-06"), completion(model="huge")]
    _, answers = await asked(server, calls=2)
    assert [answer.model for answer in answers] == ["", "huge"]


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("http://localhost:1/v1", False),
        ("http://127.0.0.1:1/v1", False),
        ("http://gpu7:8000/v1", False),
        ("http://10.0.0.7:8000/v1", False),
        ("http://[::1]:8000/v1", False),
        ("https://api.example.com/v1", True),
        ("https://8.8.8.8/v1", True),
    ],
)
async def test_remote_apis_are_asked_adaptively_and_near_servers_are_not(
    server: Server, monkeypatch: pytest.MonkeyPatch, url: str, remote: bool
) -> None:
    async def none(_: OpenAI) -> dict[str, int | None]:
        return {}

    monkeypatch.setattr(OpenAI, "_list_models", none)
    made = OpenAI(BackendOptions(base_url=url, model="m"))
    await made.identify()
    await made.aclose()
    assert made.adaptive is remote and made.concurrency == (REMOTE if remote else LOCAL)
    assert made.limiter(made.concurrency).width == 32
    assert made.limiter(8) is made.limiter(16)
