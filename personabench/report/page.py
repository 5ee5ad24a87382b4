"""Write the report: page, libraries, numbers and packs of samples in one HTML file.

Texts of users and models are data blocks that no browser executes, and the page's scripts show them
as text only. The content security policy names every script and style by its hash and forbids
everything else, remote loads first. The libraries are d3 and Observable Plot, which draw SVG: sharp
in print, styled by the page, readable to assistive technology. `vendor` has them as released.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import msgspec

from personabench import __version__
from personabench.errors import UsageError
from personabench.leaderboard.stats.scores import DRAWS
from personabench.models.cache import Cache
from personabench.report.groups import Group, apart, gather
from personabench.report.samples import Browser, index
from personabench.report.tables import describe
from personabench.report.words import summary
from personabench.results.files import replacing
from personabench.results.index import Run, read_chosen, suggest_runs
from personabench.results.locate import explain_missing_data
from personabench.results.summary import to_dict

# Bytes of packed samples. With the libraries and all numbers a report stays below 25 MB, which is
# the limit of many mail servers.
BUDGET = 20_000_000

# Share of a group's budget after which its packs go without prompts, so that the rest still fits.
PROMPT_SHARE = 0.9

LIBRARIES = ("vendor/d3.min.js", "vendor/plot.min.js")
SCRIPTS = (
    "base",
    "words",
    "table",
    "marks",
    "pictures",
    "matrix",
    "charts",
    "runs",
    "browser",
    "address",
    "start",
)
COUNTED: tuple[str, ...] = (
    "status",
    "time",
    "seconds",
    "n",
    "users",
    "owed",
    "metrics",
    "extra_metrics",
    "counters",
)
COUNTED += (
    "usage",
    "durations",
    "command",
    "harness",
    "machine",
    "fit",
    "privileged",
    "provenance",
    "signatures",
    "source",
    "warnings",
    "versions",
)
# Observable Plot writes this style into each of its figures; the policy allows it by its hash.
PLOT_STYLE = """:where(.plot) {
  --plot-background: white;
  display: block;
  height: auto;
  height: intrinsic;
  max-width: 100%;
}
:where(.plot text),
:where(.plot tspan) {
  white-space: pre;
}"""


def write(
    results: Path,
    output: Path,
    task: str | None = None,
    budget: int = BUDGET,
    *,
    with_reference: bool = False,
) -> list[str]:
    """Write the report on a results folder, and return remarks about parts that it leaves out.

    Args:
        task: only the runs of this task.
        budget: bytes of packed samples.
        with_reference: published results as well, after the runs.

    Raises:
        UsageError: there are no runs (of the task), or the file cannot be written.
        DataError: a run's file is damaged; the message names it.
    """
    groups = gather(results, task, with_reference=with_reference)
    if not groups:
        runs = read_chosen(results, with_reference=with_reference)
        tasks = ", ".join(sorted({run.summary.task for run in runs}))
        subject = f"no scored runs of task '{task}'" if task else "no scored runs"
        hint = f"there are runs of {tasks}" if tasks else suggest_runs(results)
        raise UsageError(f"{subject} under {results}/runs; {hint}")
    path = results / "cache.sqlite"
    cache = Cache(path) if path.exists() else None
    try:
        with replacing(output) as temporary, temporary.open("x", encoding="utf-8") as file:
            remarks = _write(file, groups, cache, budget)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from error
    finally:
        if cache is not None:
            cache.close()
    return remarks


def _write(file: IO[str], groups: Sequence[Group], cache: Cache | None, budget: int) -> list[str]:
    distinctions = apart(groups)
    described = [
        {**describe(group, number), "apart": distinctions[number]}
        for number, group in enumerate(groups)
    ]
    scripts = [_asset(name) for name in LIBRARIES]
    scripts.append('"use strict";\n' + "\n".join(_asset(f"page/{name}.js") for name in SCRIPTS))
    style = _asset("page/style.css")
    head, _, foot = _asset("page/page.html").partition("<!-- data -->")
    file.write(
        head.replace("$policy", html.escape(policy(scripts, [style, PLOT_STYLE]))).replace(
            "$style", style
        )
    )
    file.write(
        _block(
            "report", "application/json", _escaped(_contents(groups, described, cache is not None))
        )
    )
    file.write(f"<!--\n{_asset('vendor/LICENSE')}\n-->\n")
    for script in scripts:
        file.write(f"<script>{script}</script>\n")
    remarks = []
    remaining = budget
    for number, group in enumerate(groups):
        # Bytes that a small group does not use are left to the later ones.
        share = remaining // (len(groups) - number)
        title = f"{described[number]['task']} on {described[number]['model']}"
        if described[number]["apart"]:
            title += f" ({described[number]['apart']})"
        used, group_remarks = _write_samples(file, group, number, title, cache, share)
        remaining -= used
        remarks += group_remarks
    file.write(foot)
    return remarks


def _write_samples(
    file: IO[str],
    group: Group,
    number: int,
    title: str,
    cache: Cache | None,
    budget: int,
) -> tuple[int, list[str]]:
    """Write the packs of a group and their index; returns the bytes used, and remarks."""
    samples = index(group)
    browser = Browser(group, samples["samples"], cache)
    starts = []
    used = 0
    written = 0
    first_bare = None
    for part, pack in enumerate(browser.packs()):
        text = _packed(pack.plain())
        file.write(_block(f"pack-{number}-{part}", "text/plain", text))
        starts.append(written)
        written += len(pack.samples)
        used += len(text)
        if used > budget * PROMPT_SHARE and browser.prompts:
            browser.prompts = False
            first_bare = written

    samples |= {"packs": starts, "located": browser.located, "bare_from": first_bare}
    samples |= browser.facts.describe()
    file.write(_block(f"index-{number}", "text/plain", _packed(samples)))

    remarks = []
    if first_bare is not None and first_bare < written:
        remarks.append(
            f"{title}: messages are left out from sample {first_bare + 1} of {written} on, for size"
        )
    # Published results have no samples, whose inputs could be missing.
    own = [row for row in group.rows if row.folder]
    if own and not browser.located:
        reason = explain_missing_data(group.task, own[0].runs[0].summary)
        remarks.append(f"{title}: {reason}; inputs and records are left out")
    return used, remarks


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Make a content security policy that allows exactly these inline scripts and styles.

    Nothing can be loaded, from anywhere.
    """

    def hashed(texts: Sequence[str]) -> str:
        digests = (
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts
        )
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    # Only a script can make such an address: that of a figure on its way to a PNG file.
    images = "img-src blob:; " if scripts else ""
    return (
        f"default-src 'none'; script-src {hashed(scripts)}; style-src {hashed(styles)}; "
        f"{images}base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _contents(
    groups: Sequence[Group], described: Sequence[dict[str, Any]], cached: bool
) -> dict[str, Any]:
    return {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "draws": DRAWS,
        "cached": cached,
        "groups": [{**group, "words": summary(group)} for group in described],
        "runs": list(_runs(groups)),
    }


def _runs(groups: Sequence[Group]) -> Iterator[Mapping[str, Any]]:
    """The origin of every number, run by run."""
    for number, group in enumerate(groups):
        for row in group.rows:
            for run in row.runs:
                yield {
                    "group": number,
                    "run": run.summary.fingerprint[:8],
                    "row": row.row.run,
                    "label": row.row.label,
                    "facts": _facts(run),
                }


def _facts(run: Run) -> dict[str, Any]:
    summary = to_dict(run.summary)
    spec = msgspec.to_builtins(run.spec) if run.spec else {}
    counted = {name: summary[name] for name in COUNTED}
    if run.published:
        # Published results do not carry them, which is not the same as none.
        del counted["warnings"]
    return {"fingerprint": run.summary.fingerprint, **spec, **counted}


def _asset(name: str) -> str:
    return files("personabench.report").joinpath(name).read_text(encoding="utf-8")


def _escaped(value: Any) -> str:
    """Encode JSON that cannot end the script block around it."""
    return msgspec.json.encode(value).decode().replace("<", "\\u003c")


def _packed(value: Any) -> str:
    return base64.b64encode(gzip.compress(msgspec.json.encode(value), 6, mtime=0)).decode()


def _block(name: str, kind: str, text: str) -> str:
    return f'<script type="{kind}" id="{name}">{text}</script>\n'
