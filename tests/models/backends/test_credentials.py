"""A key and its headers reach the server they belong to and no other: two real servers note what
they get."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from aiohttp import web
from multidict import CIMultiDict

from personabench.cli.model_options import RoleArguments, role_backends
from personabench.errors import BackendDown, RunError, UsageError
from personabench.models.backends import check_url, create, credentials
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.http import proxy_for
from personabench.models.roles import RoleName
from personabench.run import runner
from personabench.run.plan import plan
from personabench.types import Message, Request

SECRETS = {
    "OPENAI_API_KEY": "sk-model-3141592653",
    "AZURE_OPENAI_API_KEY": "azure-model-3141592653",
    "VLLM_API_KEY": "vllm-model-3141592653",
    "OPENAI_ORG_ID": "org-model-3141592653",
    "OPENAI_PROJECT_ID": "proj-model-3141592653",
    "OPENAI_CUSTOM_HEADERS": "X-Gateway: custom-model-3141592653",
}
HEADER = "header-model-3141592653"
OWN = "own-key-2718281828"
NAMES = (
    "JUDGE_API_KEY",
    "SIMULATOR_API_KEY",
    "EMBEDDER_API_KEY",
    "OPENAI_BASE_URL",
    "AZURE_OPENAI_ENDPOINT",
)


class Listener:
    """A server that answers everything, and keeps the headers of every request; `elsewhere` is
    where it redirects."""

    def __init__(self) -> None:
        self.heads: list[CIMultiDict[str]] = []
        self.paths: list[str] = []
        self.elsewhere: str | None = None
        self.url = ""

    @property
    def keys(self) -> set[str]:
        return {head.get("Authorization", "") for head in self.heads}

    @property
    def got(self) -> str:
        return str(self.heads)

    async def answer(self, http: web.Request) -> web.StreamResponse:
        self.heads.append(CIMultiDict(http.headers))
        self.paths.append(http.path)
        if self.elsewhere:
            return web.Response(status=307, headers={"Location": f"{self.elsewhere}{http.path}"})
        if http.path.endswith("/models"):
            entry = {
                "id": "tiny",
                "object": "model",
                "root": "tiny",
                "parent": None,
                "max_model_len": 4096,
            }
            return web.json_response({"object": "list", "data": [entry]})
        if http.path.endswith("/embeddings"):
            texts = (await http.json())["input"]
            data = [
                {"object": "embedding", "index": at, "embedding": [1.0, at]}
                for at, _ in enumerate(texts)
            ]
            return web.json_response({"object": "list", "model": "tiny", "data": data, "usage": {}})
        if not http.path.endswith("/completions"):
            return web.Response(status=404)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "Alike.\nScore: 7"},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 9, "completion_tokens": 3}
        return web.json_response({"model": "tiny", "choices": [choice], "usage": usage})


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    made = Listener()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    owner = web.AppRunner(app, shutdown_timeout=0.1)
    await owner.setup()
    await web.TCPSite(owner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{owner.addresses[0][1]}/v1"
    try:
        yield made
    finally:
        await owner.cleanup()


@pytest.fixture
async def here() -> AsyncIterator[Listener]:
    async with listening() as made:
        yield made


@pytest.fixture
async def there() -> AsyncIterator[Listener]:
    async with listening() as made:
        yield made


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def asked(
    backend: str, under: BackendOptions, tmp_path: Path, task: str, **changes: Any
) -> runner.Options:
    chosen = {"methods": ["none"], "tasks": [task], "limit": 1, **changes}
    return runner.Options(backend=backend, backend_options=under, results=tmp_path, **chosen)


def secrets() -> list[str]:
    return [*(value.rpartition(": ")[2] for value in SECRETS.values()), HEADER]


@pytest.mark.parametrize("kind", ["openai", "vllm"])
@pytest.mark.parametrize("backend", ["openai", "vllm"])
@pytest.mark.parametrize(("role", "task"), [("judge", "reviews"), ("simulator", "prelude_summ")])
async def test_a_role_elsewhere_gets_its_own_key_and_nothing_else(
    here: Listener,
    there: Listener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    task: str,
    backend: str,
    kind: str,
) -> None:
    under = BackendOptions("tiny", here.url, headers={"X-Team": HEADER})
    lines = {role: ["X-Own: of-the-role"]}
    arguments = RoleArguments(
        backend=kind, model="tiny", base_url=there.url, header=lines.get(role)
    )
    roles = role_backends(backend, under, {role: arguments})
    await runner.run(asked(backend, under, tmp_path / "first", task, roles=roles))
    assert there.heads and not [secret for secret in secrets() if secret in there.got]
    assert {head["X-Own"] for head in there.heads} == {
        "of-the-role"
    } and "of-the-role" not in here.got
    monkeypatch.setenv(f"{role.upper()}_API_KEY", OWN)
    there.heads.clear()
    await runner.run(asked(backend, under, tmp_path / "second", task, roles=roles))
    assert there.keys == {f"Bearer {OWN}"} and not [
        secret for secret in secrets() if secret in there.got
    ]
    assert here.keys == {f"Bearer {SECRETS[f'{backend.upper()}_API_KEY']}"} and OWN not in here.got
    assert {head["X-Team"] for head in here.heads} == {HEADER}


@pytest.mark.parametrize(
    ("backend", "kind"), [("openai", None), ("openai", "openai"), ("vllm", "openai")]
)
async def test_a_role_on_the_same_server_has_the_same_key_and_headers(
    here: Listener, tmp_path: Path, backend: str, kind: str | None
) -> None:
    under = BackendOptions("tiny", here.url, headers={"X-Team": HEADER})
    address = here.url.replace("/v1", "/judge/v1") if kind else None
    roles = role_backends(
        backend,
        under,
        {"judge": RoleArguments(backend=kind, model="other", base_url=address)},
    )
    await runner.run(asked(backend, under, tmp_path, "reviews", roles=roles))
    assert here.keys == {f"Bearer {SECRETS[f'{backend.upper()}_API_KEY']}"}
    assert {head["X-Team"] for head in here.heads} == {HEADER}


async def test_all_servers_named_for_one_model_get_its_key(here: Listener, there: Listener) -> None:
    made = create(
        "vllm", BackendOptions(base_url=here.url, replicas=(there.url,), headers={"X-Team": HEADER})
    )
    await made.identify()
    await made.aclose()
    for server in (here, there):
        assert (
            server.keys == {f"Bearer {SECRETS['VLLM_API_KEY']}"}
            and server.heads[0]["X-Team"] == HEADER
        )


@pytest.mark.parametrize("kind", ["openai", "vllm"])
@pytest.mark.parametrize("backend", ["openai", "vllm", "scripted"])
async def test_an_embedder_elsewhere_gets_its_own_key_and_nothing_else(
    here: Listener,
    there: Listener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    kind: str,
) -> None:
    url = None if backend == "scripted" else here.url
    under = BackendOptions(base_url=url, embedder_url=there.url, headers={"X-Team": HEADER})
    dense = {"methods": ["rag"], "assignments": ["retriever=dense", f"embedder={kind}:tiny"]}
    await runner.run(asked(backend, under, tmp_path / "first", "lamp4", **dense))
    assert there.heads and not [secret for secret in secrets() if secret in there.got]
    there.heads.clear()
    monkeypatch.setenv("EMBEDDER_API_KEY", OWN)
    await runner.run(asked(backend, under, tmp_path / "second", "lamp4", **dense))
    assert there.keys == {f"Bearer {OWN}"} and not [
        secret for secret in secrets() if secret in there.got
    ]
    here.heads.clear()
    if url:
        under = dataclasses.replace(under, embedder_url=None)
        monkeypatch.delenv("EMBEDDER_API_KEY")
        await runner.run(asked(backend, under, tmp_path / "third", "lamp4", **dense))
        assert here.keys == {f"Bearer {SECRETS[f'{backend.upper()}_API_KEY']}"}
        assert {head["X-Team"] for head in here.heads} == {HEADER}


async def test_a_plan_keeps_keys_apart_too(here: Listener, there: Listener, tmp_path: Path) -> None:
    under = BackendOptions("tiny", here.url, headers={"X-Team": HEADER})
    roles = role_backends(
        "openai",
        under,
        {"judge": RoleArguments(backend="vllm", model="tiny", base_url=there.url)},
    )
    await plan(asked("openai", under, tmp_path, "reviews", roles=roles))
    assert there.heads and not [secret for secret in secrets() if secret in there.got]


# Whose OPENAI_API_KEY is


API, LOCAL, PROXY = credentials.API, "http://localhost:8000/v1", "https://proxy.example.com/v1"
Split = Callable[..., tuple[tuple[str, ...] | None, tuple[str, ...] | None]]


@pytest.fixture
def split() -> Split:
    def of(
        backend: str, under: BackendOptions, url: str | None, role: RoleName = "judge"
    ) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        model, roles = credentials.assign_secrets(
            backend, under, {role: ("openai", BackendOptions("m", url))}
        )
        return model.keys, roles[role][1].keys

    return of


def test_a_local_model_leaves_it_to_a_judge_at_openai(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    for backend in ("vllm", "local", "scripted"):
        for url in (None, API, "https://api.openai.com:443/v1"):
            assert split(backend, BackendOptions("m", LOCAL), url) == (
                None,
                ("JUDGE_API_KEY", "OPENAI_API_KEY"),
            )
    assert split("openai", BackendOptions("m", LOCAL), API) == (
        (),
        ("JUDGE_API_KEY", "OPENAI_API_KEY"),
    )
    monkeypatch.setenv("JUDGE_API_KEY", OWN)
    assert split("openai", BackendOptions("m", LOCAL), API) == (None, ("JUDGE_API_KEY",))


def test_the_model_under_test_keeps_it(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    assert split("openai", BackendOptions("m", PROXY), API) == (None, ("JUDGE_API_KEY",))
    assert split("openai", BackendOptions("m", PROXY), LOCAL, "simulator") == (
        None,
        ("SIMULATOR_API_KEY",),
    )
    assert split("openai", BackendOptions("m"), PROXY) == (None, ("JUDGE_API_KEY",))
    assert split("openai", BackendOptions("m"), API) == (None, ("JUDGE_API_KEY", "OPENAI_API_KEY"))
    monkeypatch.setenv("OPENAI_BASE_URL", PROXY)
    assert split("openai", BackendOptions("m"), None) == (None, ("JUDGE_API_KEY", "OPENAI_API_KEY"))
    assert split("openai", BackendOptions("m"), API) == (None, ("JUDGE_API_KEY",))
    for other in (
        "http://proxy.example.com/v1",
        "https://proxy.example.com:8443/v1",
        "https://example.com/v1",
    ):
        assert split("openai", BackendOptions("m"), other) == (None, ("JUDGE_API_KEY",)), other


def test_azures_key_is_azures(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    azure = BackendOptions("m", "https://mine.openai.azure.com", api_version="v")
    assert split("openai", azure, API) == (None, ("JUDGE_API_KEY", "OPENAI_API_KEY"))
    assert split("openai", azure, azure.base_url) == (
        None,
        ("JUDGE_API_KEY", "AZURE_OPENAI_API_KEY"),
    )
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    assert split("openai", azure, API) == (None, ("JUDGE_API_KEY",))


async def test_a_role_without_a_key_is_told_which_to_set(split: Split) -> None:
    _, roles = credentials.assign_secrets(
        "openai", BackendOptions("m", PROXY), {"judge": ("openai", BackendOptions("m", API))}
    )
    with pytest.raises(
        UsageError, match=r"set JUDGE_API_KEY \(OPENAI_API_KEY belongs to another server here\)"
    ):
        await create(*roles["judge"]).identify()


async def test_a_judge_alone_keeps_to_the_same_rule(
    here: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, roles = credentials.assign_secrets(
        "", BackendOptions(), {"judge": ("openai", BackendOptions("tiny", here.url))}
    )
    made = create(*roles["judge"])
    await made.identify()
    await made.aclose()
    assert here.heads and not [secret for secret in secrets() if secret in here.got]


def test_headers_of_a_role_nobody_plays_are_refused() -> None:
    with pytest.raises(
        UsageError, match="--judge-header: the judge is the model under test; name another"
    ):
        role_backends("openai", BackendOptions(), {"judge": RoleArguments(header=["X-Own: y"])})
    with pytest.raises(UsageError, match="--judge-header number 1 is not of the form"):
        role_backends(
            "openai", BackendOptions(), {"judge": RoleArguments(model="m", header=[HEADER])}
        )


# Redirects


@pytest.mark.parametrize("backend", ["openai", "vllm"])
async def test_no_redirect_is_followed(
    here: Listener, there: Listener, tmp_path: Path, backend: str
) -> None:
    made = create(backend, BackendOptions("tiny", here.url, headers={"X-Team": HEADER}))
    await made.identify()
    await made.open()
    here.elsewhere = there.url.removesuffix("/v1")
    with pytest.raises(
        BackendDown, match=rf"answered 307, a redirect to {here.elsewhere}/v1/chat.*not followed"
    ):
        await made.complete(Request(messages=(Message("user", "Hello?"),), max_tokens=9), "u")
    await made.prefix_counts()
    await made.aclose()
    late = create(backend, BackendOptions(base_url=here.url, headers={"X-Team": HEADER}))
    with pytest.raises(BackendDown, match="not followed"):
        await late.identify()
    await late.aclose()
    assert not there.heads


async def test_no_redirect_of_an_embedder_is_followed(
    here: Listener, there: Listener, tmp_path: Path
) -> None:
    here.elsewhere = there.url.removesuffix("/v1")
    under = BackendOptions(embedder_url=here.url)
    dense = {"methods": ["rag"], "assignments": ["retriever=dense", "embedder=openai:tiny"]}
    with pytest.raises(RunError, match=r"answered 307, a redirect to .* not followed"):
        await runner.run(asked("scripted", under, tmp_path, "lamp4", **dense))
    assert here.heads and not there.heads


PASSWORDS = ["Geh/eim99", "Geh#eim99", "Geh?eim99", "Geh@eim99", "Geh:eim99", "Geh eim99"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("form", ["http://me:{}@127.0.0.1:9/v1", "me:{}@127.0.0.1/v1"])
def test_passwords_with_odd_characters_are_not_repeated(password: str, form: str) -> None:
    with pytest.raises(UsageError, match="leave them out and set KEY") as caught:
        check_url(form.format(password), "KEY")
    assert "Geh" not in str(caught.value) and "eim99" not in str(caught.value)


@pytest.mark.parametrize("password", PASSWORDS)
def test_proxies_take_passwords_with_odd_characters(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{password}@proxy.example:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    parts = urlsplit(proxy_for("http://192.0.2.1/v1") or "")
    assert (parts.hostname, parts.port, parts.username) == ("proxy.example", 3128, "me")
    assert unquote(parts.password or "") == password


@pytest.mark.parametrize("proxy", ["http://me:Geheim99@h:port", "me:Geheim99@", "http://[Geheim99"])
def test_proxies_that_cannot_be_read_are_not_repeated(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(UsageError, match=r"the environment's proxy for 192\.0\.2\.1") as caught:
        proxy_for("http://192.0.2.1/v1")
    assert "Geheim" not in str(caught.value)
