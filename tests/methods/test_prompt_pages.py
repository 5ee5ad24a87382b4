"""The pages that show the requests of methods are those that the script writes today."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from test_prompt_files import FILES as METHOD_FILES

from personabench.api import registry
from personabench.api.prompts import Prompts

DOCS = Path(__file__).parents[2] / "docs"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prompt_pages", DOCS / "prompt_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


PAGES = load_script()
WRAPPERS = [registry.load_class("wrapper", name) for name in registry.list_entries("wrapper")]
FILES = METHOD_FILES | {file.owner: file for cls in WRAPPERS for file in cls.prompts}


@pytest.mark.parametrize("method", PAGES.CASES)
def test_a_page_is_current(method: str) -> None:
    page = (PAGES.PAGES / f"{method}.md").read_text(encoding="utf-8")
    assert page == PAGES.write_page(method), "run: python docs/prompt_pages.py"


# Stages that need data, replies or options of their own.
ELSEWHERE = {
    "summary": {"merge"},
    "rpm": {
        "clusters_with_factors",
        "merge",
        "rationale_without_statistics",
        "plain_rationale",
        "paraphrase",
        "stated_preferences",
    },
    "cipher": {
        "infer_texts",
        "infer_answers",
        "infer_conversation",
        "aggregate_timed",
        "rewrite",
    },
    "dpl": {"profile_of_cases", "free_difference"},
    "memoryos_like": {"profile"},
    # A text without a task.
    "prose": {"neutral"},
}


@pytest.mark.parametrize("method", PAGES.CASES)
def test_a_page_shows_every_usual_request(method: str) -> None:
    page = (PAGES.PAGES / f"{method}.md").read_text(encoding="utf-8")
    for wording in ("full", "compact"):
        texts = Prompts([FILES[method]], wording).resolved[method]
        requests = {name for name, stage in texts.items() if "user" in stage}
        for stage in requests - ELSEWHERE.get(method, set()):
            assert page.count(f"### {stage}\n") == 2, stage
