"""The transformers backend: a checkpoint folder or hub model in this process, with LoRA adapters.

It answers one request after the other, greedily or by sampling, on the accelerator if there is one
and on the CPU otherwise.  It is there for adapters of `personabench train` on a machine without
vLLM, and as the reference that vLLM's answers can be compared with.  Needs the extra `train`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from personabench.errors import BackendError, UsageError
from personabench.models.backends.adapters import STEERING, VECTOR, check_mapped
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.model_identity import model_identity
from personabench.models.backends.threads import THREADS, count_threads
from personabench.models.tokens import Tokens
from personabench.types import Request, Response, Usage

EXTRA = "train"
PACKAGES = ("torch", "transformers", "peft", "safetensors")
LOADED = 8
"""Adapters that are held in memory; work is ordered by user, so few return."""


def require_packages() -> None:
    """Check that the packages of the extra are installed.

    Raises:
        UsageError: some are not.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} not installed: "
            f'pip install "personabench-harness[{EXTRA}]" brings what training and its models need'
        )


class Transformers(Backend):
    """A causal language model of the transformers library: `--model FOLDER` or a hub name."""

    concurrency = 1
    serves = frozenset({"lora", "steering_vector"})

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="transformers")
        self._model: Any = None
        self._tokenizer: Any = None
        self._loaded: dict[str, None] = {}

    async def identify(self) -> None:
        require_packages()
        if self.options.model is None:
            raise UsageError(
                "--backend transformers needs --model: a checkpoint folder, or a model on the hub"
            )
        check_mapped(self._mapped, self.adapters)
        identity = model_identity(self.options.model)
        self.identity = {**identity, "kind": "transformers", **self.options.marks, **self.map_marks}

    async def open(self, log: Path | None = None) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._load)
        self.tokens = ModelTokens(self._tokenizer)
        window = getattr(self._model.config, "max_position_embeddings", None)
        limits = [size for size in (window, self.options.window) if size]
        self.window = min(limits, default=None)

    def _load(self) -> None:
        assert self.options.model is not None
        self._model, self._tokenizer = load_checkpoint(self.options.model, choose_device())
        self._model.eval()

    async def complete(self, request: Request, group: str) -> Response:
        if request.schema is not None or request.logprobs or not request.max_tokens:
            raise BackendError(
                "--backend transformers has no schemas and no likelihoods; use --backend vllm"
            )
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._generate, request)

    def _generate(self, request: Request) -> Response:
        import torch

        tokenizer = self._tokenizer
        prompt = tokenize_prompt(tokenizer, request.messages)
        options: dict[str, Any] = {}
        temperature = self.options.temperature
        temperature = request.temperature if temperature is None else temperature
        if temperature > 0:
            options = {"do_sample": True, "temperature": temperature, "top_p": request.top_p}
            torch.manual_seed(request.seed)
        with self._through(request.adapter or ""):
            reply = generate(self._model, tokenizer, prompt, request.max_tokens, options)
        ended = bool(reply) and reply[-1] == tokenizer.eos_token_id
        return Response(
            tokenizer.decode(reply, skip_special_tokens=True),
            finish="stop" if ended else "length",
            usage=Usage(len(prompt), len(reply)),
        )

    def _through(self, name: str) -> Any:
        """Put an adapter in front of the model; "" is the model itself."""
        folder = self.adapters.get(name)
        if folder is not None and (folder / STEERING).is_file():
            return self._steered(folder, self.scales[name])
        if not name:
            if not self._loaded:
                return contextlib.nullcontext()
            return self._model.disable_adapter()
        if name not in self._loaded:
            self._load_adapter(name, folder)
        # The last used is the last to go.
        self._loaded.pop(name)
        self._loaded[name] = None
        self._model.set_adapter(name)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def _steered(self, folder: Path, scale: float) -> Iterator[None]:
        """Add a vector to a layer's states, and use no adapter."""
        with self._through(""), steering(self._model, folder, scale):
            yield

    def _load_adapter(self, name: str, folder: Path | None) -> None:
        from peft import PeftModel

        if folder is None:
            raise BackendError(f"no adapter '{name}' is known")
        try:
            if self._loaded:
                self._model.load_adapter(str(folder), adapter_name=name)
            else:
                self._model = PeftModel.from_pretrained(
                    self._model, str(folder), adapter_name=name
                ).eval()
        # Files of adapters can be wrong in many ways.
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"the adapter {folder} does not fit the model: {reason}") from error
        self._loaded[name] = None
        if len(self._loaded) > LOADED:
            oldest = next(iter(self._loaded))
            del self._loaded[oldest]
            self._model.delete_adapter(oldest)

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._model = None


def generate(
    model: Any, tokenizer: Any, prompt: Sequence[int], max_tokens: int, options: Mapping[str, Any]
) -> list[int]:
    """The tokens of a reply: greedy, unless the options sample."""
    import torch

    # Neutral, whatever the model's generation_config has.
    neutral = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if options.get("do_sample"):
        neutral["top_k"] = 0  # type: ignore[assignment]
    tokens = torch.tensor([[*prompt]], device=model.device)
    with torch.inference_mode():
        generated = model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=max_tokens,
            pad_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **{**neutral, "repetition_penalty": 1.0, **options},
        )
    reply: list[int] = generated[0, len(prompt) :].tolist()
    return reply


def decoder_layers(model: Any) -> Any:
    """The layers of a decoder, in order.

    Raises:
        UsageError: the architecture has none under their usual name.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = getattr(getattr(inner, "model", None), "layers", None)
    if layers is None:
        raise UsageError(f"{type(inner).__name__} has no `model.layers`, which steering needs")
    return layers


@contextlib.contextmanager
def steering(model: Any, folder: Path, scale: float) -> Iterator[None]:
    """Add the vector of a folder to a layer's states from the end of the prompt on."""
    from safetensors.torch import load_file

    config = json.loads((folder / STEERING).read_text(encoding="utf-8"))
    vector = load_file(folder / VECTOR)["vector"].to(model.device, model.dtype)

    def add(module: Any, inputs: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        # A pass over the prompt has many positions, of which the last predicts the first token.
        states = states.clone()
        states[:, -1] += scale * vector
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = decoder_layers(model)[config["layer"]].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def choose_device() -> str:
    """Name the accelerator, or the CPU without one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_checkpoint(model: str, device: str) -> tuple[Any, Any]:
    """Load a causal model and its tokenizer: fp32 on the CPU, bf16 elsewhere.

    Raises:
        UsageError: there is no such model, or it has no chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if device == "cpu":
        torch.set_num_threads(count_threads())
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"--model {model} does not load with transformers: {reason}") from error
    if not tokenizer.chat_template or tokenizer.eos_token_id is None:
        raise UsageError(f"--model {model} has no chat template, or no token that ends a reply")
    return loaded, tokenizer


@contextlib.contextmanager
def repeatable(seed: int, device: str) -> Iterator[None]:
    """Seed torch, and let its sums have one order: one thread, or those of PERSONABENCH_THREADS."""
    import torch

    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        if device == "cpu":
            torch.set_num_threads(count_threads() if os.environ.get(THREADS) else 1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.manual_seed(seed)
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def tokenize_prompt(tokenizer: Any, messages: Any) -> list[int]:
    """The tokens of a conversation, up to the place where the reply begins."""
    turns = [{"role": message.role, "content": message.content} for message in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokens


class ModelTokens(Tokens):
    """Token counts by the loaded model's tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        return len(self._tokenize(text))

    def truncate(self, text: str, limit: int) -> str:
        tokens = self._tokenize(text)
        if len(tokens) <= limit:
            return text
        prefix: str = self._tokenizer.decode(tokens[: max(limit, 0)])
        return prefix

    def _tokenize(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens
