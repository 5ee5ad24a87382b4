"""Files of benchmarks whose loaders have met no published file yet: each form, and each defect."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from personabench import tasks
from personabench.api import registry
from personabench.api.task import Task
from personabench.errors import DataError

EXAMPLES = Path(tasks.__file__).parent
Rows = list[dict[str, Any]]

# Of each loader: the folder of its example data, and one of its tables.
FILES = {
    "penguin": ("penguin/sample", "train.json"),
    "prism": ("prefpair/sample/prism", "utterances.jsonl"),
    "personafeedback": ("prefpair/sample/personafeedback", "general/easy.jsonl"),
    "lampqa": ("lampqa/sample", "Art_and_Entertainment/test.json"),
    "longlamp_topic": ("longlamp/sample", "topic_writing_user/test.jsonl"),
    "longlamp_review": ("longlamp/sample", "product_review_user/test.jsonl"),
    "personalized_rewardbench": (
        "prefpair/sample/personalized_rewardbench",
        "Art_and_Entertainment/test.jsonl",
    ),
    "community_alignment": (
        "prefpair/sample/community_alignment",
        "community_alignment.jsonl",
    ),
    "personalllm": ("prefpair/sample/personalllm", "test.jsonl"),
}


def create(name: str) -> Task:
    return registry.load_class("task", name)()


def hash_of(name: str, data: Path) -> str:
    task = create(name)
    return str(task.open(task.default_split, data).hash)


def copy_example(name: str, tmp_path: Path) -> Path:
    """Copy the example data of a task; return the folder."""
    folder = tmp_path / "data"
    shutil.copytree(EXAMPLES / FILES[name][0], folder)
    return folder


def read(path: Path) -> Rows:
    text = path.read_text()
    if text.startswith("["):
        return list(json.loads(text))
    return [json.loads(line) for line in text.splitlines()]


def write(path: Path, rows: Rows) -> None:
    lines = [json.dumps(row) for row in rows]
    path.write_text(f"[{','.join(lines)}]" if path.suffix == ".json" else "\n".join(lines))


def mark(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def end_lines_with_crlf(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def swap_json_and_lines(path: Path) -> None:
    ending = ".jsonl" if path.suffix == ".json" else ".json"
    write(path.with_suffix(ending), read(path))
    path.unlink()


def zip_up(path: Path) -> None:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def to_parquet(path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(read(path)).to_parquet(path.with_suffix(".parquet"))
    path.unlink()


def to_csv(path: Path) -> None:
    rows = read(path)
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    path.unlink()


# PRISM is published as JSON lines alone, and its files are known by their whole names.
FORMS: list[tuple[str, Callable[[Path], None]]] = [
    *((name, form) for name in FILES for form in (mark, end_lines_with_crlf)),
    *(
        (name, form)
        for name in FILES
        if name != "prism"
        for form in (swap_json_and_lines, zip_up, to_parquet)
    ),
    *((name, to_csv) for name in ("penguin", "personafeedback", "community_alignment")),
]


@pytest.mark.parametrize(
    ("name", "form"), FORMS, ids=[f"{name}-{form.__name__}" for name, form in FORMS]
)
def test_every_form_of_a_table_gives_the_same_samples(
    name: str, form: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = copy_example(name, tmp_path)
    before = hash_of(name, folder)
    form(folder / FILES[name][1])
    assert hash_of(name, folder) == before


def put(**fields: Any) -> Callable[[Rows], None]:
    """Change fields of the first row."""
    return lambda rows: rows[0].update(fields)


def put_inside(field: str, **fields: Any) -> Callable[[Rows], None]:
    """Change fields of the first object in a field of the first row."""
    return lambda rows: rows[0][field][0].update(fields)


def drop(field: str) -> Callable[[Rows], None]:
    return lambda rows: rows[0].pop(field)


def repeat(rows: Rows) -> None:
    rows.append(rows[0])


NAN = float("nan")
FIRST = r"(line|entry) 1: "


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("penguin", put(query=None), FIRST + "no 'query' in words"),
        ("penguin", put(query=7), FIRST + "no 'query' in words"),
        ("penguin", put(query=["Help?"]), FIRST + "no 'query' in words"),
        ("penguin", drop("query"), FIRST + "no 'query' in words"),
        ("prism", put(model_response=None), FIRST + "model_response is None, expected text"),
        ("prism", put(user_prompt=7), FIRST + "user_prompt is 7, expected text"),
        ("prism", put(turn=NAN), FIRST + "turn is nan, expected a number"),
        ("prism", put(score=NAN), FIRST + "score is nan, expected a number"),
        ("prism", put(if_chosen=1), FIRST + "if_chosen is 1, expected true, false"),
        ("prism", drop("interaction_id"), FIRST + "no field 'interaction_id'"),
        ("personafeedback", put(chosen=None), FIRST + "chosen is None, expected text"),
        ("personafeedback", put(question=7), FIRST + "question is 7, expected text"),
        ("personafeedback", put(user_id=True), FIRST + "user_id is True, expected the number"),
        ("personafeedback", put(user_id=1.7), FIRST + "user_id is 1.7, expected the number"),
        ("personafeedback", drop("reject"), FIRST + "no field 'reject'"),
        ("lampqa", put(question=None), FIRST + ".*null.*question"),
        ("lampqa", put(question=" "), FIRST + "question is empty"),
        ("lampqa", put(narrative=7), FIRST + ".*int.*narrative"),
        ("lampqa", put_inside("rubric_aspects", aspect=None), FIRST + ".*null.*aspect"),
        ("lampqa", drop("rubric_aspects"), FIRST + ".*missing.*rubric_aspects"),
        ("lampqa", repeat, r"'0_2_0'\): sample 1 has the same id, expected another \(.*data\)"),
        ("longlamp_topic", put(output=None), FIRST + "output is None, expected text"),
        ("longlamp_topic", put(input=7), FIRST + "input is 7, expected text"),
        ("longlamp_topic", put(author=["ada"]), FIRST + "author is .*, expected text"),
        ("longlamp_topic", drop("profile"), FIRST + "profile is NoneType"),
        (
            "longlamp_topic",
            put_inside("profile", content=["a"]),
            FIRST + "profile entry 1: content is .*, expected text or a number",
        ),
        (
            "longlamp_review",
            put_inside("profile", overall=True),
            FIRST + "profile entry 1: overall is True, expected text or a number",
        ),
        ("community_alignment", put(annotator_id=None), FIRST + "annotator_id is None"),
        ("personalllm", put(response_1_gemma_2b=NAN), FIRST + "response_1_gemma_2b is nan"),
        ("personalized_rewardbench", put(id=None), FIRST + "id is None, expected an id"),
        ("personalized_rewardbench", put(id=["1"]), FIRST + r"id is \['1'\], expected an id"),
        ("personalized_rewardbench", put_inside("profile", id=None), FIRST + "id is None"),
        ("personalllm", put(prompt_id=None), FIRST + "prompt_id is None, expected an id"),
        *((name, list.clear, "no (rows|items|samples)") for name in FILES),
    ],
)
def test_a_defect_is_named_with_its_place(
    name: str, change: Callable[[Rows], None], message: str, tmp_path: Path
) -> None:
    folder = copy_example(name, tmp_path)
    path = folder / FILES[name][1]
    rows = read(path)
    change(rows)
    write(path, rows)
    with pytest.raises(DataError, match=message):
        hash_of(name, folder)


def test_missing_values_of_a_data_frame_are_empty(tmp_path: Path) -> None:
    folder = copy_example("longlamp_topic", tmp_path)
    path = folder / FILES["longlamp_topic"][1]
    rows = read(path)
    rows[0]["author"] = NAN
    rows[0]["profile"][0]["summary"] = NAN
    write(path, rows)
    sample = create("longlamp_topic").open("user/test", folder).load(0)
    assert sample.user_id == sample.id
    assert sample.history[0].stimulus is None


def test_users_in_another_form_are_not_replaced_by_drawn_ones(tmp_path: Path) -> None:
    folder = copy_example("personalllm", tmp_path)
    users = folder / "users.jsonl"
    content = users.read_text()
    users.write_text(content + content.splitlines()[0])
    with pytest.raises(DataError, match=r"line 13: user 'p1' has weights in an earlier row"):
        hash_of("personalllm", folder)
    users.rename(folder / "users.json")
    with pytest.raises(DataError, match=r"users.json: users are read from users.jsonl"):
        hash_of("personalllm", folder)


def test_a_survey_without_users_and_a_user_that_is_no_text_are_named(tmp_path: Path) -> None:
    folder = copy_example("prism", tmp_path)
    survey = folder / "survey.jsonl"
    survey.write_text('{"user_id": ["user1"]}')
    with pytest.raises(DataError, match=r"survey.jsonl, line 1: user_id is \['user1'\]"):
        hash_of("prism", folder)
    survey.write_text("")
    with pytest.raises(DataError, match=r"survey.jsonl has no rows"):
        hash_of("prism", folder)


def test_an_empty_memory_and_a_marked_file_of_personas(tmp_path: Path) -> None:
    folder = copy_example("personafeedback", tmp_path)
    cls = registry.load_class("task", "personafeedback")
    task = cls(cls.Params(setting="persona"))
    before = task.open("all", folder).hash
    mark(folder / "personas.jsonl")
    assert task.open("all", folder).hash == before
    (folder / "memory" / "1.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"1.jsonl has no rows, expected the memories of user 1"):
        hash_of("personafeedback", folder)
