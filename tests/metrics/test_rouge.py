"""The scorers of `rouge_score`, and the modules that they leave behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
import sys
from personabench.metrics.rouge import create_scorer
score = create_scorer(["rouge1", "rougeL"]).score("the cat sat on a mat", "a cat sat")
print(score["rouge1"].fmeasure, score["rougeL"].fmeasure, "nltk" in sys.modules)
from rouge_score.rouge_scorer import RougeScorer
import nltk.stem.porter
stemming = RougeScorer(["rouge1"], use_stemmer=True)
print(stemming.score("running cats", "running cat")["rouge1"].fmeasure)
plain = RougeScorer(["rouge1", "rougeL"]).score("the cat sat on a mat", "a cat sat")
print(plain["rouge1"].fmeasure, plain["rougeL"].fmeasure)
"""


def _run(code: str) -> list[list[str]]:
    process = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return [line.split() for line in process.stdout.splitlines()]


def test_a_scorer_needs_no_toolkit_and_leaves_the_package_to_others() -> None:
    ours, stemming, theirs = _run(PROBE)
    assert ours[:2] == theirs and ours[2] == "False"
    assert stemming == ["1.0"]


@pytest.mark.variants
def test_a_toolkit_that_is_loaded_stays_the_same_module() -> None:
    code = (
        "import sys, nltk, rouge_score.rouge_scorer as package\n"
        "from personabench.metrics.rouge import create_scorer\n"
        "create_scorer(['rouge1'])\n"
        "print(sys.modules['nltk'] is nltk, "
        "sys.modules['rouge_score.rouge_scorer'] is package)"
    )
    assert _run(code) == [["True", "True"]]
