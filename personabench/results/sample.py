"""One sample of a finished run: prediction, score, messages and references."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from personabench.results.run_folder import RunFolder
    from personabench.types import Message, Sample


# Sample ids that the message about an unknown one quotes.
EXAMPLES = 3


def describe_sample(folder: RunFolder, sample_id: str, results: Path) -> dict[str, Any]:
    """Collect a sample's calls, answer, score and references, as `show --json` prints them.

    Raises:
        UsageError: the run has no such sample.
    """
    from personabench.errors import UsageError
    from personabench.models.cache import Cache
    from personabench.types import to_json

    folder.verify(folder.predictions_path)
    prediction = folder.prediction(sample_id)
    if prediction is None:
        first = itertools.islice(folder.iter_predictions(), EXAMPLES)
        examples = ", ".join(prediction.sample_id for prediction in first)
        raise UsageError(
            f"{folder.path} has no prediction for sample '{sample_id}'; "
            f"it has {examples or 'none'}, ..."
        )
    score = next((line for line in folder.scores() if line.sample_id == sample_id), None)
    profile = folder.profiles().get(prediction.profile or "-")
    cache_path = results / "cache.sqlite"
    cache = Cache(cache_path) if cache_path.exists() else None
    calls = []
    for call in [*(profile.calls if profile else ()), *prediction.calls]:
        request = cache.request(call.key) if cache else None
        response = cache.get(call.key) if cache else None
        calls.append(
            {
                "key": call.key,
                "phase": call.phase,
                "by": "profiler" if call.profiler else None,
                "cached": call.cached,
                "input_tokens": call.input_tokens,
                "output_tokens": call.output_tokens,
                "messages": request and _messages(request.messages),
                "reply": response and response.text,
                "thought": response and response.thought,
            }
        )
    if cache is not None:
        cache.close()
    import msgspec

    sample = _find_sample(folder, sample_id)
    return {
        "sample_id": sample_id,
        "user_id": prediction.user_id,
        "history": folder.spec().history,
        "profile": profile.state if profile else None,
        "calls": calls,
        "output": prediction.output,
        "parsed": prediction.parsed,
        "references": sample and list(sample.references),
        "shown": None if prediction.shown is None else list(prediction.shown),
        "evidence": sample and list(sample.evidence),
        "values": score and msgspec.json.decode(to_json(score.values)),
        "flags": dict(prediction.flags),
        "error": prediction.error,
    }


def _find_sample(folder: RunFolder, sample_id: str) -> Sample | None:
    """The sample with its gold outputs, if the run's data is still in its folder and unchanged."""
    from personabench.results.locate import find_dataset, find_task

    spec = folder.spec()
    task = find_task(spec.task, spec.task_params, spec.task_hash)
    if task is None:
        return None
    summary = folder.summary()
    dataset = find_dataset(task, summary, summary.data)
    if dataset is None:
        return None

    for position, (name, _) in enumerate(dataset.index()):
        if name == sample_id:
            return dataset.load(position)
    return None


def _messages(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
