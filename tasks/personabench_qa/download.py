"""Download of PersonaBench's files at one level of noise, with checks of people and questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

import msgspec

from personabench.api import downloads
from personabench.errors import DataError, UsageError
from personabench.tasks.personabench_qa.files import SOURCES, read_community

ROOT = (
    "https://raw.githubusercontent.com/SalesforceAIResearch/personabench/main/"
    "eval_data/eval_data_v1/synthetic_data"
)
SPLIT = "all"
LEVELS = ("0.0", "0.3", "0.5", "0.7")
# Published numbers of questions about people with documents.
COMMUNITIES: Mapping[str, int] = {"community_0": 133, "community_1": 130}
REMEDY = "Check the address, or pass your own copy of synthetic_data with --data DIR."


def download(
    split: str,
    target: Path,
    *,
    base_url: str = ROOT,
    levels: Sequence[str] = LEVELS,
    communities: Mapping[str, int] = COMMUNITIES,
    **options: Unpack[downloads.TransferOptions],
) -> list[Path]:
    """Fetch and check both communities into `target/personabench_qa`.

    The data are CC BY-NC-SA 4.0.

    Args:
        split: "all", the only one.
        base_url: the address above the communities.
        levels: the levels of noise to fetch.
        communities: names of communities and their numbers of questions.
        options: see `TransferOptions`.

    Raises:
        UsageError: no such split, or another download is writing to the folder.
        DataError: the content is not the data; the message names the address and a remedy.
    """
    if split != SPLIT:
        raise UsageError(f"personabench_qa has no split '{split}'; it has: {SPLIT}")

    names = [name for community in communities for name in _list_files(community, levels)]
    folder = target / "personabench_qa"
    paths = downloads.download_files(
        folder,
        dict.fromkeys(names, b"["),
        lambda _: base_url,
        lambda paths: _check_list(paths[-1]),
        remedy=REMEDY,
        **options,
    )
    for community, expected in communities.items():
        for level in levels:
            people, _ = read_community(folder / community, level)
            count = sum(len(person.questions) for person in people)
            if count != expected:
                raise DataError(
                    f"{folder / community} has {count} questions about people with documents at "
                    f"noise {level}, expected {expected}. {REMEDY}"
                )
    return paths


def _list_files(community: str, levels: Sequence[str]) -> list[str]:
    names = [f"{community}/eval_info/eval_info_all.json"]
    for level in levels:
        names.append(f"{community}/eval_info/qa_gt_context_all_noise_{level}.json")
        folder = f"{community}/private_data/noise_{level}"
        names += [f"{folder}/{stem}_data_all.json" for stem in SOURCES.values()]
    return names


def _check_list(path: Path) -> downloads.CheckedFile:
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=list[msgspec.Raw])
    except msgspec.MsgspecError as error:
        raise DataError(f"it is not a JSON list ({error})") from error
    return downloads.CheckedFile(len(entries))
