"""Hidden states of a causal model after a text; imported only when vectors are made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from personabench import Message, UsageError
from personabench.api.artifacts import STEERING, VECTOR
from personabench.api.training import (
    Exchange,
    decoder_layers,
    generate,
    load_checkpoint,
    tokenize_prompt,
)


class Reader:
    """A model that texts are read with.

    Args:
        base: a folder or a hub name; device: "cpu" or "cuda".
        layer: the layer whose output is read, from 0; -1 for the middle one.
    """

    def __init__(self, base: str, device: str, layer: int) -> None:
        self.model, self.tokenizer = load_checkpoint(base, device)
        self.model.eval()
        count = len(decoder_layers(self.model))
        self.layer = count // 2 if layer == -1 else layer
        if self.layer >= count:
            raise UsageError(f"stylevector: layer {layer} of {base}, which has {count} layers")

    def answer(self, messages: Sequence[Message], max_tokens: int) -> str:
        """The model's own greedy answer."""
        prompt = tokenize_prompt(self.tokenizer, messages)
        reply = generate(self.model, self.tokenizer, prompt, max_tokens, {})
        text: str = self.tokenizer.decode(reply, skip_special_tokens=True)
        return text

    def compare(self, exchange: Exchange, max_tokens: int) -> Any:
        """The state after the user's reply less that after the model's own; None if this is empty.

        The difference is a vector in fp32.
        """
        generic = self.answer(exchange.messages, max_tokens)
        if not generic.strip():
            return None
        own = self.state(exchange.messages, exchange.output)
        return own - self.state(exchange.messages, generic)

    def state(self, messages: Sequence[Message], reply: str) -> Any:
        """The output of the layer at the last token of a reply, as a vector in fp32."""
        prompt = tokenize_prompt(self.tokenizer, messages)
        tokens = [*prompt, *self.tokenizer(reply, add_special_tokens=False)["input_ids"]]
        states: list[Any] = []

        def keep(module: Any, inputs: Any, output: Any) -> None:
            states.append(output[0] if isinstance(output, tuple) else output)

        handle = decoder_layers(self.model)[self.layer].register_forward_hook(keep)
        try:
            with torch.inference_mode():
                self.model(input_ids=torch.tensor([tokens], device=self.model.device))
        finally:
            handle.remove()
        return states[0][0, -1].float().cpu()

    def write(self, folder: Path, differences: Sequence[Any]) -> None:
        """Write the mean of differences and its layer, with the same bytes for the same numbers."""
        folder.mkdir(parents=True)
        vector = torch.stack(list(differences)).mean(0).contiguous()
        save_file({"vector": vector}, folder / VECTOR, metadata={"format": "pt"})
        config = json.dumps({"layer": self.layer})
        (folder / STEERING).write_text(config + "\n", encoding="utf-8")
