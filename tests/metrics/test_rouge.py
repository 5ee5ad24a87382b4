"""ROUGE against the numbers of the `rouge_score` package."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from rouge_score.rouge_scorer import RougeScorer

from personabench.metrics.rouge import longest_common, rouge_2
from personabench.metrics.scripts import split_latin, split_words
from personabench.metrics.text import rouge

WORDS = ("a", "b", "cat", "the", "Ünï", "中文", "42", "x-y", "İ", "ſ", "K", "don't", "..", "", "\n")


class WordTokens:
    """`split_words` in the form of a tokenizer of the package."""

    def tokenize(self, text: str) -> list[str]:
        return split_words(text)


@pytest.mark.parametrize("every_script", [False, True])
def test_the_numbers_are_those_of_the_package_to_the_last_digit(every_script: bool) -> None:
    tokenizer = WordTokens() if every_script else None
    package = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=tokenizer)
    split = split_words if every_script else split_latin
    rng = random.Random(3)
    distinct = set()
    for _ in range(2000):
        answer, gold = (" ".join(rng.choices(WORDS, k=rng.randint(0, 40))) for _ in range(2))
        theirs = package.score(gold, answer)
        ours = rouge(answer, gold, every_script=every_script)
        assert ours["rouge-1"] == theirs["rouge1"].fmeasure, (answer, gold)
        assert ours["rouge-L"] == theirs["rougeL"].fmeasure, (answer, gold)
        assert rouge_2(split(answer), split(gold)) == theirs["rouge2"].fmeasure, (answer, gold)
        distinct.add(ours["rouge-L"])
    assert len(distinct) > 100


def test_a_common_subsequence_longer_than_a_machine_word() -> None:
    words = [str(number) for number in range(300)]
    assert longest_common(words, words) == 300
    assert longest_common(words[::2], words) == 150
    assert longest_common(words, words[::-1]) == 1
    assert longest_common(words, []) == longest_common([], words) == 0


def test_rouge_needs_no_package() -> None:
    code = (
        "import sys\n"
        "from personabench.metrics.text import rouge\n"
        "print(rouge('a cat sat', 'the cat sat on a mat'))\n"
        "print(sorted({'nltk', 'rouge_score', 'absl', 'numpy'} & sys.modules.keys()))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert process.stdout.splitlines()[-1] == "[]"
