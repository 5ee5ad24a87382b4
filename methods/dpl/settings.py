"""DPL's hyper-parameters, fully resolved: the two presets, and the parameters that override them.

`Params` (on the method) holds the user's settings, with None for the preset's value; `Settings` is
the result, so that the rest of the code needs no preset.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from personabench import UsageError
from personabench.retrieval.search import SEARCHES

SELECTORS = ("auto", "kmeans_closest", "kmeans_random", "random", "least_similar", "most_similar")
RETRIEVERS = tuple(name for name in SEARCHES if name != "ranked")
TIERS = ("T1", "T2", "T3", "user")
ALL_AXES = "all"
ORDERS = ("best_first", "best_last", "oldest_first")


@dataclass(frozen=True)
class Settings:
    """Resolved hyper-parameters, documented in `Dpl.Params`; the defaults are preset `adapted`."""

    n_docs: int = 8
    n_shown: int = 0
    num_documents: int = 0
    order: str = "best_first"
    axes: tuple[str, ...] = (ALL_AXES,)
    free_form: bool = False
    summarize: bool = True
    k_peers: int = 4
    min_peers: int = 1
    selector: str = "auto"
    n_init: int = 10
    seed: int = 42
    retriever: str = "bm25"
    embedder: str = "wordllama"
    tiers: tuple[str, ...] = ("T1", "T2", "T3")
    max_pool: int = 32
    tau: float = 0.0
    dup_max: float = 0.98
    temporal_guard: bool = False
    difference_max_tokens: int = 512
    profile_max_tokens: int = 512
    population_max_users: int = 2000


# The paper compares reviews of the same product, with enough reviewers for a full choice each time.
PRESETS = {
    "adapted": Settings(),
    "faithful": Settings(
        min_peers=0,
        selector="kmeans_closest",
        # The default of scikit-learn for k-means++ since 1.4, with which the released code runs.
        n_init=1,
        embedder="sentence-transformers:Alibaba-NLP/gte-Qwen2-1.5B-instruct",
        tiers=("T1",),
        max_pool=0,
        dup_max=0.0,
        difference_max_tokens=2048,
        profile_max_tokens=2048,
        population_max_users=0,
    ),
}


# As resolved; `tau` has no effect without T3.
PAPER = {
    **asdict(PRESETS["faithful"]),
    "min_peers": PRESETS["faithful"].k_peers,
    "n_shown": PRESETS["faithful"].n_docs,
}
del PAPER["tau"]


def resolve(preset: str, overrides: dict[str, Any]) -> Settings:
    """The preset with the overrides that are not None.

    Raises:
        UsageError: an unknown preset, selector, retriever or tier, or a number that cannot work.
    """
    if preset not in PRESETS:
        raise UsageError(f"dpl: preset '{preset}' is not one of {', '.join(PRESETS)}")

    changes = {name: value for name, value in overrides.items() if value is not None}
    if "tiers" in changes:
        changes["tiers"] = tuple(changes["tiers"].replace(" ", "").split(","))
    if "axes" in changes:
        changes["axes"] = tuple(name.strip() for name in changes["axes"].split(",") if name.strip())
    settings = replace(PRESETS[preset], **changes)
    if settings.min_peers == 0:
        settings = replace(settings, min_peers=settings.k_peers)
    if settings.n_shown == 0:
        settings = replace(settings, n_shown=settings.n_docs)

    _check_names(settings)
    _check_numbers(settings)
    return settings


def _check_names(settings: Settings) -> None:
    if settings.selector not in SELECTORS:
        raise UsageError(
            f"dpl: selector '{settings.selector}' is not one of {', '.join(SELECTORS)}"
        )
    if settings.retriever not in RETRIEVERS:
        raise UsageError(
            f"dpl: retriever '{settings.retriever}' is not one of {', '.join(RETRIEVERS)} "
            "(it searches two lists of records, so a ranking made for one cannot serve)"
        )
    if settings.order not in ORDERS:
        raise UsageError(f"dpl: order '{settings.order}' is not one of {', '.join(ORDERS)}")
    if settings.axes != (ALL_AXES,) and settings.free_form:
        raise UsageError("dpl: axes and free_form exclude each other; leave one of them out")
    for tier in settings.tiers:
        if tier not in TIERS:
            raise UsageError(
                f"dpl: tiers are given as T1,T3 out of {', '.join(TIERS)}; '{tier}' is none of them"
            )


def _check_numbers(settings: Settings) -> None:
    at_least_one = (
        "n_docs",
        "n_shown",
        "k_peers",
        "min_peers",
        "n_init",
        "difference_max_tokens",
        "profile_max_tokens",
    )
    for name in at_least_one:
        value = getattr(settings, name)
        if value < 1:
            raise UsageError(f"dpl: {name} must be at least 1, not {value}")

    for name in ("max_pool", "num_documents", "population_max_users"):
        value = getattr(settings, name)
        if value < 0:
            raise UsageError(f"dpl: {name} must be 0 (no limit) or more, not {value}")

    # A pool smaller than min_peers would make every comparison fail, silently.
    if 0 < settings.max_pool < settings.min_peers:
        raise UsageError(
            f"dpl: max_pool={settings.max_pool} leaves no room for min_peers={settings.min_peers}"
        )
