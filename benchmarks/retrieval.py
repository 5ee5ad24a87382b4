"""Our BM25 beside rank_bm25, in one run on the same generated texts: seconds to build and to score, and agreement.

    pip install "personabench-harness[bench]"
    python benchmarks/retrieval.py

Two workloads: LaMP-like profiles (300 users with 100-200 records, one question each, so building counts) and one
list of 50,000 records (a population, ten queries).  Words follow a Zipf law, as in text.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np

from personabench.retrieval.bm25 import BM25

Workload = list[tuple[list[str], list[str]]]


def texts(rng: np.random.Generator, n: int, low: int, high: int) -> list[str]:
    words = np.minimum(rng.zipf(1.2, size=(n, high)), 50_000)
    lengths = rng.integers(low, high + 1, size=n)
    return [
        " ".join(f"w{word}" for word in row[:length])
        for row, length in zip(words, lengths, strict=True)
    ]


def profiles(rng: np.random.Generator, users: int) -> Workload:
    return [
        (texts(rng, int(rng.integers(100, 201)), 40, 160), texts(rng, 1, 20, 100))
        for _ in range(users)
    ]


def population(rng: np.random.Generator, n: int) -> Workload:
    return [(texts(rng, n, 20, 80), texts(rng, 10, 20, 60))]


Timed = tuple[float, float, list[np.ndarray]]


def ours(workload: Workload) -> Timed:
    build = query = 0.0
    scores = []
    for documents, queries in workload:
        start = time.perf_counter()
        index = BM25(documents)
        built = time.perf_counter()
        scores += [index.scores(text) for text in queries]
        build += built - start
        query += time.perf_counter() - built
    return build, query, scores


def theirs(workload: Workload) -> Timed:
    from rank_bm25 import BM25Okapi

    build = query = 0.0
    scores = []
    for documents, queries in workload:
        start = time.perf_counter()
        index = BM25Okapi([document.split() for document in documents])
        built = time.perf_counter()
        scores += [index.get_scores(text.split()) for text in queries]
        build += built - start
        query += time.perf_counter() - built
    return build, query, scores


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=300, help="profiles in the first workload")
    parser.add_argument(
        "--population", type=int, default=50_000, help="records in the second workload"
    )
    parser.add_argument(
        "--repeat", type=int, default=3, help="runs of each side in turn; the fastest counts"
    )
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    workloads = {
        f"{options.users} profiles of 100-200": profiles(rng, options.users),
        f"one list of {options.population:,}": population(rng, options.population),
    }
    print(
        f"{'workload':<26}{'library':<14}{'build s':>9}{'query s':>9}{'total s':>9}{'ratio':>8}{'max diff':>10}"
    )
    for name, workload in workloads.items():
        runs = [(ours(workload), theirs(workload)) for _ in range(options.repeat)]
        mine, other = (
            min(side, key=lambda run: run[0] + run[1]) for side in zip(*runs, strict=True)
        )
        difference = max(float(np.abs(a - b).max()) for a, b in zip(mine[2], other[2], strict=True))
        ratio = (other[0] + other[1]) / (mine[0] + mine[1])
        print(
            f"{name:<26}{'rank_bm25':<14}{other[0]:>9.3f}{other[1]:>9.3f}{sum(other[:2]):>9.3f}{1:>7.1f}x{'':>10}"
        )
        print(
            f"{'':<26}{'personabench':<14}{mine[0]:>9.3f}{mine[1]:>9.3f}{sum(mine[:2]):>9.3f}"
            f"{ratio:>7.1f}x{difference:>10.1e}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
