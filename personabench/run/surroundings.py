"""Surroundings of a run: the harness's commit, and the machine."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import personabench
from personabench import __version__

# Git and nvidia-smi answer in milliseconds; a machine on which they hang must not delay a run.
_PATIENCE = 3.0


@functools.cache
def describe_harness() -> dict[str, str]:
    """Return the version of personabench, and the commit if it runs from a checkout.

    `changed` says that the checkout's code differs from its commit.
    """
    harness = {"version": __version__}
    root = Path(personabench.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return harness

    commit = _run("git", "-C", str(root), "rev-parse", "HEAD")
    if commit:
        harness["commit"] = commit
        code = ("personabench", "methods", "tasks")
        if _run("git", "-C", str(root), "status", "--porcelain", "--", *code):
            harness["changed"] = "yes"
    return harness


@functools.cache
def describe_machine() -> dict[str, Any]:
    """Return the system, the processor, the memory and the graphics cards, without any name."""
    import psutil

    machine: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _name_processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 0,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }
    if shutil.which("nvidia-smi"):
        cards = _run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
        if cards:
            machine["gpus"] = cards.splitlines()
    return machine


def _name_processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _run(*command: str) -> str:
    """Return the output of a command; empty if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip()
