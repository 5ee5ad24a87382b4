"""Scorers of the `rouge_score` package, loaded without the toolkit that it imports.

`rouge_score` imports all of NLTK, which takes longer than many a run, for stemming and for the
sentences of ROUGE-Lsum.  No scorer here does either.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

from personabench.metrics.preload import IMPORTING

IMPORTS = ("absl.logging",)
"""What `rouge_score` imports beside the toolkit."""
_UNUSED = ("nltk", "nltk.stem", "nltk.stem.porter")


def create_scorer(types: Sequence[str], tokenizer: Any | None = None) -> Any:
    """Create a `RougeScorer` without stemming.

    Args:
        types: as `rouge_score` names them, such as "rouge1" and "rougeL".
        tokenizer: an object with `tokenize(text)`; None for the tokenizer of the official scores.
    """
    scorers, tokenizers = _load()
    # Named, because a scorer that chooses its tokenizer logs that, which makes the root logger
    # print the tracebacks of failed samples to the terminal.
    return scorers.RougeScorer(list(types), tokenizer=tokenizer or tokenizers.DefaultTokenizer())


@lru_cache(maxsize=1)
def _load() -> tuple[Any, Any]:
    """Import the package's modules for the scorers here; other code imports its own copy."""
    with IMPORTING:
        return _import_without_toolkit()


def _import_without_toolkit() -> tuple[Any, Any]:
    names = [name for name in sys.modules if name.split(".")[0] in ("nltk", "rouge_score")]
    if "nltk" in names:
        return _import_scorers()

    saved = {name: sys.modules.pop(name) for name in names}
    try:
        for name in _UNUSED:
            sys.modules[name] = ModuleType(name)
        sys.modules["nltk.stem"].__dict__["porter"] = sys.modules["nltk.stem.porter"]
        return _import_scorers()
    finally:
        # The modules that saw placeholders must not reach code that does stem.
        for name in list(sys.modules):
            if name in _UNUSED or name.split(".")[0] == "rouge_score":
                del sys.modules[name]
        sys.modules.update(saved)


def _import_scorers() -> tuple[Any, Any]:
    scorers = importlib.import_module("rouge_score.rouge_scorer")
    tokenizers = importlib.import_module("rouge_score.tokenizers")
    return scorers, tokenizers
