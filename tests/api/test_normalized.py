"""Texts without case and punctuation, as they are compared."""

from __future__ import annotations

import random
import re

from personabench.types import normalized


def test_ascii_and_other_texts_are_normalized_alike() -> None:
    rng = random.Random(0)
    for limit in (128, 600):
        for _ in range(500):
            codes = [rng.randrange(limit) for _ in range(30)]
            text = "".join(map(chr, codes))
            assert normalized(text) == " ".join(re.findall(r"[^\W_]+", text.lower()))
    assert normalized("Don't_stop — now!") == "don t stop now"
