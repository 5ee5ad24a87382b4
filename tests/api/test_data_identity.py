"""The identity of data is its content: golden hashes, and other forms of the same records."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from reformatted_data import copy_reformatted

from personabench import Record, Sample, Task, Vocabulary
from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.api.users import open_split
from personabench.hashing import digest
from personabench.results.spec import SPEC_VERSION, RunSpec
from personabench.testing import trial
from personabench.types import Sampling, from_json, to_json

# A change here makes every run of the task another run: say so in CHANGELOG and docs/files.md.
GOLDEN = {
    "aloe": "676034a3a028bff3",
    "bespoke": "a649f6983d61375f",
    "community_alignment": "546573082bd2f42a",
    "lamp1": "518e99315b9a6c4c",
    "lamp2m": "509f56b18805ebb4",
    "lamp2n": "6e1644e952b0eb1a",
    "lamp3": "26b32473d5383009",
    "lamp4": "53b756bec03c4643",
    "lamp5": "984aea32d94bd29d",
    "lamp6": "39e936d8ca34a066",
    "lamp7": "71714c624217dd07",
    "lampqa": "eb1b64e11f38efc9",
    "locomo": "d0819579d417a080",
    "longlamp_abstract": "b00469533701d608",
    "longlamp_email": "9890a96deb95bf12",
    "longlamp_review": "2a71c1e30f795dbd",
    "longlamp_topic": "77c6f685e5e73a37",
    "longmemeval": "b28d8749b18cc7e3",
    "penguin": "6016479fc298ab98",
    "personabench_qa": "f138677a4f41e87b",
    "prefeval": "60a2ef68ef732afa",
    "prefeval_gen": "bdf96f2efb819682",
    "personamem": "b880a3eaee29cf02",
    "personamem_v2": "ecacc28e9238d037",
    "personamem_v2_gen": "ecacc28e9238d037",
    "prefdisco": "2b42245bb5c19d25",
    "prefdisco_warm": "2b42245bb5c19d25",
    "plume_email": "24f33acdbabe51d9",
    "plume_summ": "137a4b9378cba469",
    "prelude_email": "611a3d99134cee44",
    "prelude_summ": "5bbf33ce34015e8c",
    "personafeedback": "177e8e66e30492f4",
    "personalized_rewardbench": "bd650f400f913d2e",
    "personafeedback_gen": "4e8f7e4dfb7ed381",
    "personalllm_gen": "d867dcf4aaf035ef",
    "personalllm": "a8b48c042aa547ed",
    "prism": "808f4672634b3571",
    "psoups": "bb97b1c4cf6eac61",
    "restraint": "7c56ebdb240dfbde",
    "reviews": "90c1020493368690",
    "usafebench": "03069457b6937071",
}
# They read no file unless one is named.
MADE_BY_RULE = ("restraint",)
IN_FILES = tuple(name for name in GOLDEN if name not in MADE_BY_RULE)
PRELUDE = {"plume_email": 20, "plume_summ": 25, "prelude_email": 32, "prelude_summ": 40}
# PRELUDE and PLUME draw trajectories by position, LoCoMo and PersonaMem-v2 number their questions,
# PrefEval's files share rows, a history of Community Alignment is the earlier rows, LongLaMP's rows
# have no ids, ALOE combines the first texts of two lists, and PersonaFeedback numbers its personas
# by line.
LONGLAMP = ("longlamp_abstract", "longlamp_email", "longlamp_review", "longlamp_topic")
ORDERED = (
    *PRELUDE,
    *LONGLAMP,
    "aloe",
    "bespoke",
    *("community_alignment", "locomo", "personamem_v2", "personamem_v2_gen"),
    *("personafeedback", "personafeedback_gen", "prefeval", "prefeval_gen"),
)
# Not every file of their example data is read, and all that is read is hashed as samples.
PREFERENCES = (
    *("community_alignment", "personafeedback", "personafeedback_gen"),
    *("personalized_rewardbench", "personalllm", "personalllm_gen", "prism", "psoups"),
)
HASHED_AS_SAMPLES = (
    "bespoke",
    "personabench_qa",
    "prefeval",
    "prefeval_gen",
    *PREFERENCES,
    *LONGLAMP,
    "aloe",
)


def open_task(name: str, data: Path | None = None) -> Dataset:
    return open_split(create_task(name), create_task(name).default_split, data)


def create_task(name: str) -> Task:
    cls = registry.load_class("task", name)
    # The paper's number of rounds needs more documents than the example data has.
    params = {"rounds": PRELUDE[name]} if name in PRELUDE else {}
    task: Task = cls(cls.Params(**params))
    return task


def example_folder(name: str) -> Path:
    module = importlib.import_module(registry.load_class("task", name).__module__)
    folder = Path(str(module.__file__)).parent / "sample"
    return folder / name if (folder / name).is_dir() else folder


def test_hashes_of_the_example_data_are_those_of_runs_on_disk() -> None:
    hashes = {name: open_task(name).hash[:16] for name in registry.list_entries("task")}
    assert hashes == GOLDEN


def make_spec() -> RunSpec:
    return RunSpec(
        task="lamp4",
        task_version=1,
        task_params={"template": "chat"},
        separation="user",
        split="dev",
        sample=True,
        data_hash="d" * 64,
        method="rag",
        method_hash="m" * 64,
        params={"k": 8, "retriever": "bm25"},
        model={"kind": "api", "name": "m"},
        sampling=Sampling(),
        seed=0,
        task_hash="t" * 64,
    )


def test_the_fingerprint_of_a_spec_is_that_of_runs_on_disk() -> None:
    assert (
        make_spec().fingerprint
        == "724abff0763ca4065e5130478a0548fdbdfd6895a23624c75bc84e090154f9e9"
    )
    # Runs of the first version are read under the names that they have.
    assert (
        msgspec.structs.replace(make_spec(), version=1).fingerprint
        == "ab50c538f9128e73663efb6dc04c87a44f9aaaa477ec61259f7c9f55f1f26f75"
    )


def test_a_spec_of_the_first_version_keeps_its_name_and_says_that_it_is_one() -> None:
    spec = from_json(to_json(msgspec.structs.replace(make_spec(), version=1)), RunSpec)
    assert spec.version == 1 != SPEC_VERSION
    assert "identified data by its bytes" in spec.version_note
    assert not make_spec().version_note


@pytest.mark.parametrize("name", IN_FILES)
def test_the_form_of_the_files_changes_nothing(tmp_path: Path, name: str) -> None:
    data = copy_reformatted(example_folder(name), tmp_path / "d", shuffled=name not in ORDERED)
    original, copied = open_task(name, example_folder(name)), open_task(name, data)
    assert original.hash == copied.hash
    assert sorted(original.index()) == sorted(copied.index())
    assert set(map(describe, original.samples())) == set(map(describe, copied.samples()))


def describe(sample: Sample) -> str:
    """A sample as JSON with sorted keys, also of the JSON that its hidden facts hold."""
    hidden = {key: text for key, text in sample.hidden.items() if text[:1] == "{"}
    bare = msgspec.structs.replace(sample, hidden={}) if hidden else sample
    facts = {key: json.loads(text) for key, text in hidden.items()}
    return json.dumps([facts, to_json(bare)], sort_keys=True)


def change_letter(path: Path) -> None:
    """Add a letter to one record of a file."""
    text = path.read_text()
    if path.name == "dev_outputs.json":
        golds = json.loads(text)
        first, *others = golds["golds"]
        other = next(gold for gold in others if gold["output"] != first["output"])
        first["output"], other["output"] = other["output"], first["output"]
        path.write_text(json.dumps(golds))
        return
    fields = "abstract|input|instruction|text|description|content|preference"
    field = "local_context|justification|query" if path.stem == "train" else fields
    changed, count = re.subn(rf'("(?:{field})": "[^"\\]+)"', r'\1 x"', text, count=1)
    assert count == 1, path
    path.write_text(changed)


@pytest.mark.parametrize("name", [name for name in IN_FILES if name not in HASHED_AS_SAMPLES])
def test_one_letter_of_any_file_changes_the_hash(tmp_path: Path, name: str) -> None:
    before = open_task(name, example_folder(name)).hash
    data = copy_reformatted(example_folder(name), tmp_path / "d", shuffled=False)
    for path in [*data.rglob("*.json"), *data.rglob("*.jsonl")]:
        if not is_read(name, path):
            continue
        text = path.read_text()
        change_letter(path)
        assert open_task(name, data).hash != before, path
        path.write_text(text)


def is_read(name: str, path: Path) -> bool:
    """Whether a task reads a file of its folder, which may be of another split or environment."""
    if name in PRELUDE:
        sources = {sample.hidden["source"] for sample in open_task(name).samples()}
        return path.stem in {name.removeprefix("prelude_"), *sources}
    return path.stem != "val" and "128k" not in path.name


@pytest.mark.parametrize(
    ("name", "method"),
    [("lamp3", "majority"), ("lamp4", "dpl"), ("personamem", "persona_db"), ("reviews", "cicl")],
)
def test_the_order_of_questions_changes_no_request(tmp_path: Path, name: str, method: str) -> None:
    def ask(data: Path, history: str = "own") -> tuple[list[str], dict[str, str | None]]:
        task = create_task(name)
        dataset = open_split(task, task.default_split, data)
        result = trial(method, task, dataset=dataset, limit=3, history=history)
        requests = sorted({digest(request) for request in result.requests})
        return requests, {line.sample_id: line.output for line in result.predictions}

    data = copy_reformatted(example_folder(name), tmp_path / "d", seed=3)
    for history in ("own", "shuffled"):
        assert ask(example_folder(name), history) == ask(data, history)


def dataset_of(samples: list[Sample], protocol: str) -> Dataset:
    class Own(Task):
        name = "own"
        kind = "text"
        words = Vocabulary("reader", "book", "review")

        def load(self, split: str, data: Path | None) -> Any:
            yield from samples

    Own.protocol = protocol  # type: ignore[assignment]
    return Own().open("dev", None)


def test_the_order_of_samples_counts_where_it_is_that_of_rounds() -> None:
    samples = [
        Sample(f"s{number}", f"u{number % 2}", f"Question {number}?", references=("yes",))
        for number in range(4)
    ]
    for protocol, counts in (("static", False), ("online", True)):
        hashes = {dataset_of(order, protocol).hash for order in (samples, samples[::-1])}
        assert (len(hashes) == 2) == counts


def test_the_longest_history_of_a_user_is_that_of_the_population_whatever_the_order() -> None:
    records = tuple(Record(f"r{number}", "Film", f"text {number}") for number in range(6))
    samples = [
        Sample(f"s{size}", "u", f"Question {size}?", history=records[:size], references=("yes",))
        for size in (3, 5, 1)
    ]
    for order in (samples, samples[::-1]):
        (user,) = dataset_of(order, "static").population()
        assert len(user.history) == 5
