"""Differences between a run and its method's paper, and how tables name them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from engine_fixtures import options

from personabench.api.fidelity import list_differences
from personabench.api.method import Method
from personabench.api.prompts import Prompts, Replacements
from personabench.api.registry import load_class
from personabench.api.wording import WordingName
from personabench.errors import PluginError, UsageError
from personabench.leaderboard.notes import describe_differences
from personabench.models.backends.scripted import Scripted
from personabench.run import runner
from personabench.types import Sampling

PUBLISHED = SimpleNamespace(sample=False, departures=())
GREEDY = Sampling()
EXAMPLE = SimpleNamespace(sample=True, departures=())


def differences(
    method: str,
    task: str,
    params: dict[str, Any] | None = None,
    *,
    task_params: dict[str, Any] | None = None,
    dataset: Any = PUBLISHED,
    sampling: Sampling = GREEDY,
    history: str = "own",
) -> list[str]:
    method_class, task_class = load_class("method", method), load_class("task", task)
    return list_differences(
        method_class(method_class.Params(**(params or {}))),
        task_class(task_class.Params(**(task_params or {}))),
        dataset,
        sampling,
        history,
    )


LAYOUT = {"layout": "message", "profile": "after", "order": "best_first"}
DPL = Sampling(temperature=0.8, top_p=0.95, max_tokens=2048)
CIPHER = Sampling(temperature=0.0, top_p=0.95, max_tokens=4000)


@pytest.mark.parametrize(
    ("method", "task", "params", "sampling"),
    [
        ("dpl", "reviews", {"preset": "faithful"}, DPL),
        ("drp", "reviews", {"preset": "faithful"}, Sampling(0.0, 0.95, 4096)),
        ("cipher", "prelude_email", {"embedder": "mpnet", "k": 1}, CIPHER),
        ("cipher", "prelude_summ", {"embedder": "bert"}, CIPHER),
        ("oracle", "prelude_summ", {}, CIPHER),
        ("none", "lamp4", {}, Sampling()),
    ],
)
def test_the_settings_of_the_paper_are_faithful(
    method: str, task: str, params: dict[str, Any], sampling: Sampling
) -> None:
    task_params = LAYOUT if task == "reviews" else None
    assert differences(method, task, params, task_params=task_params, sampling=sampling) == []


def test_parameters_and_decoding_are_compared_as_resolved() -> None:
    default = differences("dpl", "reviews")
    assert "tiers T1,T2,T3 (paper: T1)" in default
    assert "min_peers 1 (paper: 4)" in default
    assert "temperature 0 (paper: 0.8)" in default
    assert "max_pool 32 (paper: 0)" in default

    params = {"preset": "faithful", "embedder": "wordllama"}
    changed = differences("dpl", "reviews", params, task_params=LAYOUT, sampling=DPL)
    assert changed == [
        "embedder wordllama (paper: sentence-transformers:Alibaba-NLP/gte-Qwen2-1.5B-instruct)"
    ]
    assert differences("rpm", "lamp3") == [
        "embedder wordllama (paper: sentence-transformers:facebook/contriever)",
        "history_cap 50 (paper: unset)",
    ]
    persona_db = differences("persona_db", "lamp4", {"preset": "paper"})
    assert persona_db == ["task lamp4"]


def test_task_data_options_and_history_are_compared() -> None:
    params = {"preset": "faithful"}
    assert differences("dpl", "lamp4", params, sampling=DPL) == ["task lamp4"]

    def of_reviews(**changes: Any) -> list[str]:
        settings = {"task_params": LAYOUT, "sampling": DPL, **changes}
        return differences("dpl", "reviews", params, **settings)

    assert of_reviews(dataset=EXAMPLE) == ["example data"]
    assert of_reviews(history="shuffled") == ["history shuffled"]
    assert of_reviews(task_params={**LAYOUT, "profile": "before"}) == [
        "task.profile before (paper: after)"
    ]
    ruled = differences("oracle", "prelude_summ", task_params={"user": "rule"}, sampling=CIPHER)
    assert ruled == ["task.user rule (paper: llm)"]
    # A baseline that is made for any task has no data of its own to differ from.
    assert differences("none", "lamp4", dataset=EXAMPLE, history="shuffled") == []


def test_a_setting_that_the_method_does_not_have_is_the_authors_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load_class("method", "rag"), "paper_settings", {"kk": 4})
    with pytest.raises(PluginError, match=r"paper_settings.*'kk'"):
        differences("rag", "lamp4")


def test_a_methods_resolved_parameters_are_checked() -> None:
    class Vague(Method):
        name = "vague"

        def resolved_params(self) -> Any:
            return ["k"]

        async def predict(self, sample: Any, state: Any, ctx: Any) -> str:
            return ""

    task = load_class("task", "lamp4")()
    with pytest.raises(PluginError, match="resolved_params"):
        list_differences(Vague(), task, PUBLISHED, GREEDY, "own")  # type: ignore[arg-type]


def test_tables_say_in_what_rows_differ() -> None:
    def run(fit: str, *differs: str) -> Any:
        return SimpleNamespace(summary=SimpleNamespace(fit=fit, differs=list(differs)))

    runs = [
        ("dpl", run("adapted", "task lamp4", "top_p 1 (paper: 0.95)")),
        ("drp", run("adapted", "task lamp4", "top_p 1 (paper: 0.95)")),
        ("rpm", run("adapted", "example data")),
        ("none", run("faithful")),
        # A summary of an earlier version.
        ("cipher", run("adapted")),
    ]
    assert describe_differences(runs) == [
        "Not as in the paper: dpl, drp; differs in: task lamp4, top_p 1 (paper: 0.95).",
        "Not as in the paper: rpm; differs in: example data.",
        "Adapted to a task its paper did not have: cipher.",
    ]


def test_summaries_of_earlier_versions_have_no_differences() -> None:
    from personabench.results.summary import RunFacts

    facts = msgspec.json.decode(b'{"fit": "adapted"}', type=RunFacts)
    assert (facts.fit, facts.differs) == ("adapted", [])


def resolve_paper(tmp_path: Path, methods: str, task: str, *assignments: str) -> list[Any]:
    chosen = options(tmp_path, methods, task, assignments=["preset=paper", *assignments], limit=1)
    return runner.resolve(chosen, Scripted())


def test_preset_paper_sets_parameters_and_decoding(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout = [f"task.{name}={value}" for name, value in LAYOUT.items()]
    dpl, drp = resolve_paper(tmp_path, "dpl,drp", "reviews", *layout)
    assert dpl.differs == drp.differs == ["example data"]
    assert dpl.spec.sampling == DPL
    assert drp.spec.sampling == Sampling(0.0, 0.95, 4096)
    assert "dpl with preset=paper still differs from its paper in: example data" in caplog.text

    (rpm,) = resolve_paper(tmp_path, "rpm", "lamp3")
    assert rpm.differs == ["example data"]
    (persona_db,) = resolve_paper(tmp_path, "persona_db", "lamp4")
    assert persona_db.differs == ["task lamp4"]


def test_texts_for_small_models_and_replaced_ones_differ_from_the_papers() -> None:
    def of_texts(method: str, wording: WordingName, replacements: Replacements | None) -> list[str]:
        cls, task = load_class("method", method), load_class("task", "reviews")
        prompts = Prompts(cls.prompts, wording, replacements)
        return list_differences(
            cls(cls.Params(preset="faithful")),
            task(task.Params(**LAYOUT)),
            PUBLISHED,
            DPL,
            "own",
            prompts,
        )

    assert of_texts("dpl", "full", None) == []
    assert of_texts("dpl", "compact", None) == ["wording compact"]
    mine = Replacements("mine.toml", {"dpl": {"notes": {"text": "Like this: {profile}"}}})
    (replaced,) = of_texts("dpl", "full", mine)
    assert replaced.startswith("prompts mine-")


@pytest.mark.parametrize(
    ("assignment", "wording", "expected"),
    [
        ("preset=paper", None, "full"),
        ("rpm.preset=paper", None, "full"),
        ("rpm.k=3", None, "compact"),
        ("preset=paper", "compact", "compact"),
    ],
)
def test_preset_paper_words_requests_as_papers_do(
    tmp_path: Path, assignment: str, wording: WordingName | None, expected: str
) -> None:
    class Packaged(Scripted):
        packaged = True

    chosen = options(
        tmp_path, "rpm,none", "lamp3", assignments=[assignment], wording=wording, limit=1
    )
    runs = runner.resolve(chosen, Packaged())
    assert {run.prompts.wording for run in runs} == {expected}
    assert {run.task.wording for run in runs} == {expected}
    assert ("wording compact" in runs[0].differs) is (expected == "compact")


def test_preset_paper_leaves_set_parameters_and_says_so(tmp_path: Path) -> None:
    # `none` has no paper's settings, and runs beside the others as it is.
    cipher, none = resolve_paper(
        tmp_path, "cipher,none", "prelude_summ", "cipher.embedder=wordllama"
    )
    assert cipher.differs == ["example data", "embedder wordllama (paper: mpnet or bert)"]
    # The paper has 1 as well.
    assert cipher.spec.params["k"] == 5
    assert none.differs == []
    assert none.spec.sampling == Sampling()


def test_preset_paper_is_refused_by_a_method_without_a_papers_settings(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no parameter 'preset'"):
        resolve_paper(tmp_path, "none", "lamp4")
