"""A run as other tools read it: a `datasets` folder, a CSV, or (in `inspect_log`) a log of inspect-ai.

A run folder holds answers and scores, the cache holds messages and replies, the data holds inputs and references: here
they are joined again, sample by sample, so that memory stays flat.  What is no longer there is left out, and said.
Unlike `publish`, an export carries the texts of the data and of its users.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from personabench.errors import UsageError
from personabench.models.cache import Cache
from personabench.results.csv_rows import write_csv
from personabench.results.index import SCORER
from personabench.results.locate import find_dataset, find_task
from personabench.results.run_folder import Profile, RunFolder
from personabench.types import Call, Message, Prediction, Sample, Score, to_json


@dataclass(frozen=True)
class CallRecord:
    """A model call of a sample; messages, reply and thought are None where the cache no longer has them."""

    call: Call
    messages: Sequence[Message] | None
    reply: str | None
    thought: str | None


@dataclass(frozen=True)
class Line:
    """Everything known of one sample of a run.

    Attributes:
        sample: input and references; None where the data is no longer at its place.
        profile: the user's state behind the answer, where the method keeps one.
        calls: those of the profile, which the user's samples share, then those of the sample.
    """

    prediction: Prediction
    sample: Sample | None
    score: Score | None
    profile: Profile | None
    calls: Sequence[CallRecord]


class Source:
    """A run to export.

    Args:
        folder: the run.
        results: the results folder with the cache.

    Raises:
        UsageError: it has no answers yet.
        DataError: a file of the run is damaged.
    """

    def __init__(self, folder: RunFolder, results: Path) -> None:
        self.folder = folder
        self.summary = folder.summary()
        self.spec = folder.spec()
        folder.verify(folder.predictions_path)
        self.scores = {line.sample_id: line for line in folder.scores()}
        task = find_task(self.spec.task, self.spec.task_params, self.spec.task_hash)
        self.known = task is not None
        self.data = find_dataset(task, self.summary, self.summary.data) if task else None
        self.cache_path = results / "cache.sqlite"
        self._places = (
            {name: at for at, (name, _) in enumerate(self.data.index())} if self.data else {}
        )
        answered = dict.fromkeys(line.sample_id for line in folder.iter_predictions())
        self.ids = sorted(answered, key=lambda name: self._places.get(name, len(self._places)))
        if not self.ids:
            raise UsageError(f"{folder.path} has no answers to export; repeat the run's command")

    def lines(self) -> Iterator[Line]:
        """Every sample with an answer or an error, in the order of the data."""
        profiles = self.folder.profiles()
        cache = Cache(self.cache_path) if self.cache_path.exists() else None
        with contextlib.closing(cache) if cache else contextlib.nullcontext():
            for prediction in self.folder.ordered_predictions(self.ids):
                if prediction is None:
                    continue
                name, profile = prediction.sample_id, profiles.get(prediction.profile or "-")
                calls = [*(profile.calls if profile else ()), *prediction.calls]
                place = self._places.get(name)
                yield Line(
                    prediction,
                    self.data.load(place) if self.data is not None and place is not None else None,
                    self.scores.get(name),
                    profile,
                    [_asked(call, cache) for call in calls],
                )

    def remarks(self) -> list[str]:
        """What an export of the run will lack."""
        said = []
        if not self.known:
            said.append(
                f"task {self.spec.task} is not installed, or does not take these options: inputs and references are "
                "left out; --task FILE names its file"
            )
        elif self.data is None:
            said.append(
                "the data is no longer where the run found it: inputs and references are left out"
            )
        if not self.cache_path.exists():
            said.append(f"{self.cache_path} is not there: messages and replies are left out")
        if self.summary.owed:
            said.append(f"{self.summary.owed} samples have no answer")
        return said


def _asked(call: Call, cache: Cache | None) -> CallRecord:
    request, response = (cache.request(call.key), cache.get(call.key)) if cache else (None, None)
    told = (response.text, response.thought) if response else (None, None)
    return CallRecord(call, request.messages if request else None, *told)


def rows(source: Source) -> Iterator[dict[str, Any]]:
    """Samples as flat rows; docs/files.md says what the columns are."""
    spec = source.spec
    shared = {
        "run": spec.fingerprint[:8],
        "task": spec.task,
        "separation": spec.separation,
        "split": spec.split,
        "bundled_sample": spec.sample,
        "method": spec.method,
        "params": to_json(spec.params),
        "history": spec.history,
        "model": spec.model["name"],
        "seed": spec.seed,
    }
    metrics = _metrics(source)
    for line in source.lines():
        prediction, sample, profile = line.prediction, line.sample, line.profile
        yield {
            **shared,
            "sample_id": prediction.sample_id,
            "user_id": prediction.user_id,
            "input": sample and sample.input,
            "choices": list(sample.choices) if sample else [],
            "attributes": to_json(sample.attributes) if sample else None,
            "references": list(sample.references) if sample else [],
            "profile": None if profile is None else _text(profile.state),
            "output": prediction.output,
            "parsed": prediction.parsed,
            "record": to_json(prediction.record),
            "flags": to_json(prediction.flags),
            "error": prediction.error,
            "attempts": prediction.attempts,
            "input_tokens": prediction.usage.input_tokens,
            "output_tokens": prediction.usage.output_tokens,
            "cached_tokens": prediction.usage.cached_tokens,
            "calls": [_call(asked) for asked in line.calls],
            **{
                column: line.score and line.score.values.get(scorer, {}).get(metric)
                for column, (scorer, metric) in metrics.items()
            },
        }


def _metrics(source: Source) -> dict[str, tuple[str, str]]:
    """Columns of scores: `<metric>` of the official scorer, else `<metric>/<scorer>`."""
    pairs = dict.fromkeys(
        (scorer, metric)
        for score in source.scores.values()
        for scorer, each in score.values.items()
        for metric in each
    )
    return {
        metric if scorer == SCORER else f"{metric}/{scorer}": (scorer, metric)
        for scorer, metric in pairs
    }


def _call(asked: CallRecord) -> dict[str, Any]:
    call = asked.call
    return {
        "phase": call.phase,
        "cached": call.cached,
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "seconds": call.seconds,
        "finish": call.finish,
        "messages": [{"role": each.role, "content": each.content} for each in asked.messages or ()],
        "reply": asked.reply,
        "thought": asked.thought,
    }


def _text(state: Any) -> str:
    return state if isinstance(state, str) else to_json(state)


def as_csv(source: Source, output: Path) -> None:
    """Write a run's rows as CSV; lists and objects are JSON text.

    Raises:
        UsageError: the file cannot be written.
    """
    made = rows(source)
    with (
        replacing(output) as path,
        path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        if first := next(made, None):
            write_csv(file, first, chain([first], made))


def as_dataset(source: Source, output: Path) -> None:
    """Write a run's rows as a folder for `datasets.load_from_disk`, every column typed.

    Raises:
        UsageError: the folder holds something already, or cannot be written.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(
            f"{output} exists; a dataset is a folder of its own: choose another --output"
        )
    import datasets

    kinds: dict[type, Any] = {str: "string", bool: "bool", int: "int64", float: "float64"}
    value = {kind: datasets.Value(name) for kind, name in kinds.items()}
    first = next(rows(source))
    features = {name: value.get(type(each), value[str]) for name, each in first.items()}
    features |= {name: [value[str]] for name in ("choices", "references")}
    message = {"role": value[str], "content": value[str]}
    counts = dict.fromkeys(("input_tokens", "output_tokens"), value[int])
    features["calls"] = [
        {
            "phase": value[str],
            "cached": value[bool],
            **counts,
            "seconds": value[float],
            "finish": value[str],
        }
        | {"messages": [message], "reply": value[str], "thought": value[str]}
    ]
    for column, (scorer, metric) in _metrics(source).items():
        values = (score.values.get(scorer, {}).get(metric) for score in source.scores.values())
        features[column] = (
            [value[float]] if any(isinstance(each, list) for each in values) else value[float]
        )
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
            made = datasets.Dataset.from_generator(
                rows,
                features=datasets.Features(features),
                gen_kwargs={"source": source},
                cache_dir=scratch,
                fingerprint=source.spec.fingerprint[:16],
                split=datasets.NamedSplit(source.spec.split),
            )
            made.save_to_disk(output)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A file to write that takes the place of `output` when the block ends well.

    Raises:
        UsageError: it cannot be written.
    """
    temporary = output.with_name(f"{output.name}.tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(output)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
