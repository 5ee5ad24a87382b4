"""A stand-in for `vllm serve`: the same flags, log lines, endpoints and children, no model.

    python fake_vllm.py --model M --host 127.0.0.1 --port 1234 [...]

Flags of its own: `--fail WORDS` ends with a traceback, `--slow SECONDS` delays health, `--stubborn`
ignores SIGTERM, `--latency SECONDS` an answer takes, `--pids FILE` where it writes its own and its
children's process ids, one of which runs in a session of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from personabench.types import Message, Request


def is_probe(body: dict[str, Any]) -> bool:
    """Whether a request is the one that learns a server's dialect."""
    return "This message tests the connection." in json.dumps(body)


class FakeVLLM:
    """The endpoints of a vLLM server.

    Attributes:
        bodies: chat requests received, but for probes, which are in `probes`; heads: their headers.
        faults: replies to give before good ones; latency: seconds an answer takes.
        sick: whether health fails; hits, queries: its prefix-cache counters.
        says: the model it claims to be, if not the requested one.
        word: the beginning of its answers.
        loads: requests to load an adapter; may_load: whether it was started for that.
    """

    def __init__(
        self, model: str = "org/tiny", latency: float = 0.0, served: str | None = None
    ) -> None:
        self.entries: list[dict[str, Any]] = [
            {"id": served or model, "root": model, "parent": None, "max_model_len": 4096},
        ]
        self.latency = latency
        self.sick = False
        self.bodies: list[dict[str, Any]] = []
        self.probes: list[dict[str, Any]] = []
        self.heads: list[Any] = []
        self.faults: list[Any] = []
        self.tokenized = 0
        self.hits, self.queries = 100, 1000
        self.says: str | None = None
        self.word = "answer"
        self.loads: list[dict[str, Any]] = []
        self.may_load = True
        self.app = web.Application()
        self.app.add_routes(
            [
                web.get("/health", self.health),
                web.get("/metrics", self.metrics),
                web.get("/v1/models", self.models),
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/load_lora_adapter", self.load_adapter),
                web.post("/tokenize", self.tokenize),
                web.post("/detokenize", self.detokenize),
            ]
        )

    async def health(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=503 if self.sick else 200)

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        labels = '{engine="0",model_name="m"}'
        return web.Response(
            text="# TYPE vllm:prefix_cache_queries_total counter\n"
            f"vllm:prefix_cache_queries_total{labels} {self.queries:.1f}\n"
            f"vllm:prefix_cache_queries_created{labels} 1.79e+09\n"
            f"vllm:prefix_cache_hits_total{labels} {self.hits:.1f}\n"
            f"vllm:external_prefix_cache_hits_total{labels} 5.0\n"
        )

    async def models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": self.entries})

    async def chat(self, http: web.Request) -> web.StreamResponse:
        body = await read_json(http)
        if is_probe(body):
            self.probes.append(body)
            return web.json_response(
                {
                    "model": body["model"],
                    "choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}],
                }
            )
        self.bodies.append(body)
        self.heads.append(http.headers.copy())
        if self.faults:
            fault = self.faults.pop(0)
            reply: web.StreamResponse = (
                fault if isinstance(fault, web.Response) else await fault(http)
            )
            return reply
        if body["model"] not in {entry["id"] for entry in self.entries}:
            words = f"The model `{body['model']}` does not exist."
            return web.json_response(
                {"error": {"message": words, "type": "NotFoundError"}}, status=404
            )
        if self.latency:
            await asyncio.sleep(self.latency)
        self.queries += 100
        self.hits += 60
        text = body["messages"][-1]["content"].split()[-1]
        message = {"role": "assistant", "content": f"{self.word} {text}"}
        usage = {
            "prompt_tokens": 11,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 7},
        }
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": []}]}
        named = self.says or body["model"]
        return web.json_response({"id": "1", "model": named, "choices": [choice], "usage": usage})

    def adapt(self, **paths: str) -> None:
        """Serve adapters of the model, by name."""
        base = self.entries[0]["id"]
        self.entries += [{"id": name, "root": path, "parent": base} for name, path in paths.items()]

    async def load_adapter(self, http: web.Request) -> web.StreamResponse:
        if not self.may_load:
            raise web.HTTPNotFound
        body = await read_json(http)
        self.loads.append(body)
        name = body["lora_name"]
        if not (Path(body["lora_path"]) / "adapter_config.json").is_file():
            return web.json_response({"error": {"message": f"no adapter in {name}"}}, status=400)
        if name in {entry["id"] for entry in self.entries}:
            words = f"The lora adapter '{name}' has already been loaded."
            return web.json_response({"error": {"message": words}}, status=400)
        self.adapt(**{name: body["lora_path"]})
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def tokenize(self, http: web.Request) -> web.StreamResponse:
        self.tokenized += 1
        tokens = [ord(letter) for letter in (await read_json(http))["prompt"]]
        return web.json_response({"count": len(tokens), "max_model_len": 4096, "tokens": tokens})

    async def detokenize(self, http: web.Request) -> web.StreamResponse:
        return web.json_response({"prompt": "".join(map(chr, (await read_json(http))["tokens"]))})


async def read_json(http: web.Request) -> Any:
    """Read a body that has to say that it is JSON, as vLLM demands."""
    if http.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType
    return await http.json()


SECRET = "key-marker-3141592653589793"


class Site:
    """A fake server that can be taken down and brought back on its port."""

    def __init__(self, fake: FakeVLLM) -> None:
        self.fake = fake
        self.port = 0
        self._owner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def up(self) -> None:
        fresh = FakeVLLM(latency=self.fake.latency)
        fresh.__dict__.update(
            {key: value for key, value in self.fake.__dict__.items() if key != "app"}
        )
        self.fake = fresh
        self._owner = web.AppRunner(self.fake.app, shutdown_timeout=0.05)
        await self._owner.setup()
        site = web.TCPSite(self._owner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._owner.addresses[0][1]

    async def down(self) -> None:
        if self._owner is not None:
            server = self._owner.server
            assert server is not None
            for connection in list(server.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            await self._owner.cleanup()
            self._owner = None


def request(text: str = "Hello", **fields: Any) -> Request:
    return Request(messages=(Message("user", text),), max_tokens=16, **fields)


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--model", "--host", "--fail", "--pids", "--uvicorn-log-level", "--max-model-len"):
        parser.add_argument(flag)
    parser.add_argument("--default-chat-template-kwargs", type=json.loads, default={})
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    for flag in ("--port", "--slow", "--latency"):
        parser.add_argument(flag, type=float, default=0)
    for flag in ("--stubborn", "--enable-prefix-caching", "--enable-lora"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--lora-modules", nargs="+", default=[])
    given = parser.parse_args()
    print("INFO 11-23 06:00:00 [utils.py:1] non-default args", flush=True)
    print(
        "WARNING 11-23 06:00:00 [utils.py:2] this can cause `OSError: Too many open files`",
        flush=True,
    )
    asleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    children = [subprocess.Popen(asleep), subprocess.Popen(asleep, start_new_session=True)]
    if given.pids:
        Path(given.pids).write_text(
            " ".join(str(pid) for pid in (os.getpid(), *(child.pid for child in children)))
        )
    if given.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("(EngineCore pid=7) INFO 11-23 06:00:00 [core.py:1] Starting to load model m", flush=True)
    if given.fail:
        print(
            f"(EngineCore pid=7) ERROR 11-23 06:00:01 [core.py:1] ValueError: {given.fail}",
            flush=True,
        )
        print("RuntimeError: Engine core initialization failed. See root cause above.", flush=True)
        os._exit(3)

    async def serve() -> None:
        await asyncio.sleep(given.slow)
        fake = FakeVLLM(given.model, given.latency)
        fake.word = (
            "short"
            if given.default_chat_template_kwargs.get("enable_thinking") is False
            else fake.word
        )
        fake.adapt(**dict(module.split("=", 1) for module in given.lora_modules))
        owner = web.AppRunner(fake.app, handle_signals=False)
        await owner.setup()
        await web.TCPSite(owner, given.host, int(given.port)).start()
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
