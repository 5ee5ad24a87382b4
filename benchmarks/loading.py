"""Peak memory and time of opening a large LaMP-form file, compared with the standard library.

    python benchmarks/loading.py --mb 500

Generates a LaMP-4 question file of the given size in a temporary folder, then measures each way of
reading it in a fresh process: our loader (open, check every record, iterate over all samples) and
plain `json.load`.  Mapped pages of the file count towards our peak.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURE = """
import resource, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
{imports}
start = time.perf_counter()
{work}
print(time.perf_counter() - start, peak())
"""
READERS = {
    "personabench": (
        "from personabench.tasks.lamp import Lamp4",
        "dataset = Lamp4().open('dev', folder)\n"
        "for sample in dataset.samples():\n"
        "    assert sample.history",
    ),
    "json.load": (
        "import json",
        "records = json.load((folder / 'dev_questions.json').open())\n"
        "for record in records:\n"
        "    assert record",
    ),
}


def generate(folder: Path, megabytes: int) -> int:
    """Write a question file of about `megabytes` MB and its output file.

    Returns:
        The number of questions.
    """
    rng = random.Random(0)
    words = generate_words(rng, 5000)
    golds: list[dict[str, str]] = []
    written = 0
    with (folder / "dev_questions.json").open("w", encoding="utf-8") as file:
        file.write("[")
        while written < megabytes * 1_000_000:
            sample_id = f"31{len(golds)}"
            profile = []
            for number in range(rng.randint(50, 350)):
                record = generate_record(rng, words, f"{sample_id}{number}")
                profile.append(record)
            article = " ".join(rng.choices(words, k=35))
            question = {
                "id": sample_id,
                "input": f"Generate a headline for the following article: {article}",
                "profile": profile,
                "user_id": f"u{len(golds) // 2}",
            }
            comma = "," if golds else ""
            written += file.write(comma + json.dumps(question))
            headline = " ".join(rng.choices(words, k=9))
            golds.append({"id": sample_id, "output": headline})
        file.write("]")
    outputs = json.dumps({"task": "LaMP_4", "golds": golds})
    (folder / "dev_outputs.json").write_text(outputs, encoding="utf-8")
    return len(golds)


def generate_words(
    rng: random.Random,
    count: int,
) -> list[str]:
    words = []
    for _ in range(count):
        letters = rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))
        words.append("".join(letters))
    return words


def generate_record(
    rng: random.Random,
    words: list[str],
    record_id: str,
) -> dict[str, str]:
    text = " ".join(rng.choices(words, k=35))
    title = " ".join(rng.choices(words, k=9))
    # Dates up to the 28th exist in every month.
    year, month, day = rng.randint(10, 22), rng.randint(1, 12), rng.randint(1, 28)
    return {
        "id": record_id,
        "text": text,
        "title": title,
        "date": f"20{year}-{month:02}-{day:02}",
    }


def measure(
    reader: str,
    folder: Path,
) -> tuple[float, float]:
    """Measure seconds and peak resident MiB of one way of reading, in a fresh process."""
    imports, work = READERS[reader]
    code = MEASURE.format(imports=imports, work=work)
    # A process keeps its peak, so each reader needs one of its own.
    process = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, peak = map(float, process.stdout.split())
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=500, help="size of the generated file in MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        megabytes = parser.parse_args().mb
        questions = generate(folder, megabytes)
        print(f"{megabytes} MB, {questions} questions")
        costs = {reader: measure(reader, folder) for reader in READERS}

    mebibytes = megabytes / 1.048576
    for reader, (seconds, peak) in costs.items():
        print(f"{reader:13} {seconds:6.1f} s  peak {peak:7.0f} MiB  {peak / mebibytes:.2f} x file")
    our_seconds, our_peak = costs["personabench"]
    json_seconds, json_peak = costs["json.load"]
    print(
        f"ratio ours / json.load: time {our_seconds / json_seconds:.2f}, "
        f"memory {our_peak / json_peak:.2f}"
    )


if __name__ == "__main__":
    main()
