"""Training of LoRA adapters with torch and peft, the same bytes every time on one machine.

The base model is loaded once and never changes: an adapter is put in front of it, trained, written
and taken off again, and all randomness comes from the seed that belongs to the user.  Imported only
when something is trained, since the packages belong to an extra.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from personabench import UsageError
from personabench.api.training import load_checkpoint, repeatable
from personabench.methods.oppu.examples import IGNORED, Example, make_batches, make_parts

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PART_TOKENS = 2048
"""Padded tokens of one pass; their logits take 4 bytes for each word of the vocabulary."""


class Settings(NamedTuple):
    """How an adapter is trained; see the parameters of the method."""

    targets: tuple[str, ...]
    rank: int
    alpha: int
    dropout: float
    learning_rate: float
    weight_decay: float
    epochs: int
    batch: int
    warmup: float
    clip: float


class Fitted(NamedTuple):
    """Trained numbers, and updates of them."""

    parameters: int
    steps: int


class Trainer:
    """A base model that adapters are trained on.

    Args:
        base: a folder or a hub name; device: "cpu" or "cuda".
        stage1: the adapter of the population stage, which is merged into the weights in memory.
    """

    def __init__(self, base: str, device: str, stage1: Path | None = None) -> None:
        self.base = base
        self.device = device
        self.model, self.tokenizer = load_checkpoint(base, device)
        if stage1 is not None:
            self.model = PeftModel.from_pretrained(self.model, str(stage1)).merge_and_unload()
        self.model.requires_grad_(False)

    def fit(
        self, examples: Sequence[Example], settings: Settings, seed: int, folder: Path
    ) -> Fitted:
        """Train an adapter on examples and write it to a folder.

        Raises:
            UsageError: the model has no modules of these names.
        """
        with repeatable(seed, self.device):
            config = LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules=list(settings.targets),
                bias="none",
                task_type="CAUSAL_LM",
            )
            try:
                adapted = get_peft_model(self.model, config)
            except ValueError as error:
                raise UsageError(
                    f"oppu: {self.base} has no modules named {', '.join(settings.targets)}; its "
                    f"architecture is {type(self.model).__name__}"
                ) from error
            try:
                steps = self._update(adapted, examples, settings, seed)
                state = get_peft_model_state_dict(adapted)
                write_adapter(folder, state, config.to_dict())
            finally:
                # The next user must find the base model as this one did.
                self._take_off(adapted)
        return Fitted(sum(tensor.numel() for tensor in state.values()), steps)

    def _update(
        self, adapted: Any, examples: Sequence[Example], settings: Settings, seed: int
    ) -> int:
        """Minimise the loss; returns the number of updates."""
        adapted.train()
        weights = [weight for weight in adapted.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(
            weights, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        total = -(-len(examples) // settings.batch) * settings.epochs
        rising = max(1, round(settings.warmup * total))
        order = list(range(len(examples)))
        rng = random.Random(seed)
        step = 0
        for _ in range(settings.epochs):
            rng.shuffle(order)
            for batch in make_batches(examples, order, settings.batch):
                rate = min((step + 1) / rising, (total - step) / max(1, total - rising + 1))
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * min(1.0, rate)
                learnt = sum(example.learnt for example in batch)
                for part in make_parts(batch, PART_TOKENS):
                    loss = self.loss(adapted, part) / learnt
                    loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, settings.clip)
                optimizer.step()
                optimizer.zero_grad()
                step += 1
        return step

    def _take_off(self, adapted: Any) -> None:
        self.model = adapted.unload()
        # What peft leaves behind would count as another adapter.
        if hasattr(self.model, "peft_config"):
            del self.model.peft_config
        self.model.requires_grad_(False)

    def loss(self, model: Any, examples: Sequence[Example]) -> Any:
        """The summed negative log-likelihood of the examples' labels, in nats; a scalar tensor."""
        longest = max(len(example.tokens) for example in examples)
        padding = self.tokenizer.eos_token_id

        def stack(rows: Sequence[Sequence[int]], filler: int) -> Any:
            padded = [[*row, *[filler] * (longest - len(row))] for row in rows]
            return torch.tensor(padded, device=self.device)

        tokens = stack([example.tokens for example in examples], padding)
        labels = stack([example.labels for example in examples], IGNORED)
        mask = stack([[1] * len(example.tokens) for example in examples], 0)
        logits = model(input_ids=tokens, attention_mask=mask).logits[:, :-1].float()
        return torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            labels[:, 1:].reshape(-1),
            ignore_index=IGNORED,
            reduction="sum",
        )

    def mean_loss(self, examples: Sequence[Example], adapter: Path | None = None) -> float:
        """The mean loss per learnt token, with or without an adapter, in nats."""
        model = self.model
        if adapter is not None:
            model = PeftModel.from_pretrained(model, str(adapter))
        model.eval()
        try:
            with torch.inference_mode():
                total = sum(float(self.loss(model, [example])) for example in examples)
        finally:
            if adapter is not None:
                self._take_off(model)
        return total / sum(example.learnt for example in examples)


def write_adapter(folder: Path, state: dict[str, Any], config: dict[str, Any]) -> None:
    """Write an adapter as peft and vLLM read it, with the same bytes for the same numbers.

    Without the path of the base model, which the card of the artifact names by its content.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: state[name].detach().cpu().float().contiguous() for name in sorted(state)}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        **config,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
    }
    plain = json.dumps(config, sort_keys=True, indent=1, default=_plain)
    (folder / CONFIG).write_text(plain + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def combine(first: Path, second: Path, folder: Path) -> None:
    """Write the adapter whose change of the weights is the sum of two adapters' changes.

    A server of the base model can serve it, so that no merged copy of the model is needed.  The
    scales are in the numbers; modules of one adapter alone are filled up with zeros, since servers
    expect one rank.
    """
    states, configs = [], []
    for path in (first, second):
        states.append(load_file(path / WEIGHTS))
        configs.append(json.loads((path / CONFIG).read_text(encoding="utf-8")))
    ranks = [config["r"] for config in configs]
    scales = [config["lora_alpha"] / config["r"] for config in configs]

    combined = {}
    for name in sorted({*states[0], *states[1]}):
        is_input = "lora_A" in name
        known = states[0].get(name, states[1].get(name))
        assert known is not None
        parts = []
        for state, rank, scale in zip(states, ranks, scales, strict=True):
            shape = (rank, known.shape[1]) if is_input else (known.shape[0], rank)
            part = state.get(name, torch.zeros(shape))
            parts.append(part if is_input else part * scale)
        combined[name] = torch.cat(parts, dim=0 if is_input else 1)
    targets = {*configs[0]["target_modules"], *configs[1]["target_modules"]}
    rank = sum(ranks)
    config = {**configs[1], "r": rank, "lora_alpha": rank, "target_modules": targets}
    write_adapter(folder, combined, config)
