"""Corpus BLEU from per-sample statistics equals sacrebleu's, also on resamples."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sacrebleu import corpus_bleu as reference_bleu

from personabench.metrics.bleu import corpus_bleu, count_ngrams, signature

WORDS = (
    "The",
    "kettle",
    "pours",
    "slowly",
    ",",
    "and",
    "it's",
    "worth",
    "$4.50",
    "!",
    "I",
    "kept",
    "it",
    "well-made",
)


def corpus(seed: int, size: int = 40) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    golds = [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(size)]
    return [" ".join(w for w in gold.split() if rng.random() < 0.8) for gold in golds], golds


@pytest.mark.parametrize("seed", range(5))
def test_sums_of_statistics_give_corpus_bleu(seed: int) -> None:
    outputs, golds = corpus(seed)
    rows = np.array(
        [count_ngrams(output, gold) for output, gold in zip(outputs, golds, strict=True)]
    )
    assert rows.shape == (40, 10)
    assert corpus_bleu(rows) == pytest.approx(reference_bleu(outputs, [golds]).score, abs=1e-9)
    resample = random.Random(seed).choices(range(40), k=40)
    whole = reference_bleu([outputs[i] for i in resample], [[golds[i] for i in resample]]).score
    assert corpus_bleu(rows[resample]) == pytest.approx(whole, abs=1e-9)


def test_it_is_not_a_mean_and_keeps_case() -> None:
    rows = np.array(
        [count_ngrams("a b c d e f", "a b c d e f"), count_ngrams("x", "p q r s t u v w")]
    )
    mean = (corpus_bleu(rows[:1]) + corpus_bleu(rows[1:])) / 2
    assert corpus_bleu(rows) != pytest.approx(mean, abs=0.1)
    assert corpus_bleu(np.array([count_ngrams("A B C D", "a b c d")])) < 1
    assert corpus_bleu(
        np.array([count_ngrams("same words in order", "same words in order")])
    ) == pytest.approx(100)


def test_empty_answers_score_zero() -> None:
    assert corpus_bleu(np.array([count_ngrams("", "a real review")])) == 0


def test_signature_says_tokenizer_case_and_smoothing() -> None:
    assert all(
        part in signature()
        for part in ("case:mixed", "tok:13a", "smooth:exp", "eff:no", "version:")
    )
