"""Peak memory and time of opening a large LaMP-form file, against reading it with the standard library.

    python benchmarks/loading.py --mb 500

Invents a LaMP-4 question file of the given size in a temporary folder, then measures each way of reading it in a fresh
process: our loader (open, check every record, iterate over all samples) and plain `json.load`.  Mapped pages of the
file count towards our peak.
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
        "dataset = Lamp4().open('dev', folder)\nfor sample in dataset.samples():\n    assert sample.history",
    ),
    "json.load": (
        "import json",
        "records = json.load((folder / 'dev_questions.json').open())\nfor record in records:\n    assert record",
    ),
}


def generate(folder: Path, megabytes: int) -> int:
    """Write a question file of about `megabytes` MB and its output file; returns the number of questions."""
    rng = random.Random(0)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10)))
        for _ in range(5000)
    ]
    golds, written = [], 0
    with (folder / "dev_questions.json").open("w", encoding="utf-8") as file:
        file.write("[")
        while written < megabytes * 1_000_000:
            sample_id = f"31{len(golds)}"
            profile = [
                {
                    "id": f"{sample_id}{number}",
                    "text": " ".join(rng.choices(words, k=35)),
                    "title": " ".join(rng.choices(words, k=9)),
                    "date": f"20{rng.randint(10, 22)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
                }
                for number in range(rng.randint(50, 350))
            ]
            question = "Generate a headline for the following article: " + " ".join(
                rng.choices(words, k=35)
            )
            record = {
                "id": sample_id,
                "input": question,
                "profile": profile,
                "user_id": f"u{len(golds) // 2}",
            }
            written += file.write(("," if golds else "") + json.dumps(record))
            golds.append({"id": sample_id, "output": " ".join(rng.choices(words, k=9))})
        file.write("]")
    (folder / "dev_outputs.json").write_text(
        json.dumps({"task": "LaMP_4", "golds": golds}), encoding="utf-8"
    )
    return len(golds)


def measure(reader: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak resident MiB of one way of reading, in a fresh process."""
    imports, work = READERS[reader]
    code = MEASURE.format(imports=imports, work=work)
    out = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True
    )
    seconds, peak = map(float, out.stdout.split())
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=500, help="size of the invented file in MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        megabytes = parser.parse_args().mb
        questions = generate(folder, megabytes)
        print(f"{megabytes} MB, {questions} questions")
        found = {reader: measure(reader, folder) for reader in READERS}
    for reader, (seconds, peak) in found.items():
        print(
            f"{reader:13} {seconds:6.1f} s  peak {peak:7.0f} MiB  {peak / (megabytes / 1.048576):.2f} x file"
        )
    (ours, our_peak), (theirs, their_peak) = found["personabench"], found["json.load"]
    print(f"ratio ours / json.load: time {ours / theirs:.2f}, memory {our_peak / their_peak:.2f}")


if __name__ == "__main__":
    main()
