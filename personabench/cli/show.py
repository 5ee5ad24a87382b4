"""`personabench show`: a run, one of its samples, or the prompts of a method before a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.console import echo, emit, screen
from personabench.cli.leaderboard import open_mask
from personabench.cli.options import (
    RESULTS,
    Assignments,
    ContextLength,
    Data,
    History,
    Json,
    MaskFile,
    Results,
    Seed,
    Split,
)
from personabench.cli.prompt_options import Wording, read_texts, read_wording
from personabench.errors import visible
from personabench.results.index import find_run
from personabench.results.sample import _messages, describe_sample

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.api.prompts import Replacements
    from personabench.api.wording import WordingName
    from personabench.leaderboard.mask import Mask
    from personabench.results.index import Run
    from personabench.results.run_folder import RunFolder
    from personabench.results.summary import Summary
    from personabench.run.options import Options


def show(
    run: Annotated[
        str | None,
        typer.Argument(
            help="Run folder, first characters of a run id, or 'last'.",
            metavar="RUN",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        str | None, typer.Argument(help="Sample id.", metavar="SAMPLE", show_default=False)
    ] = None,
    results: Results = RESULTS,
    dry: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the prompts of --method for --sample without a run."),
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            metavar="METHOD",
            help="With --dry-run: method name or file.py[:Class].",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            "-t",
            metavar="TASK",
            help="With --dry-run: the task. Otherwise the run's task, if it is not installed.",
        ),
    ] = None,
    texts: Annotated[
        bool,
        typer.Option("--prompts", help="Print the texts of --method's prompts, as run reads them."),
    ] = False,
    sample_id: Annotated[
        str | None, typer.Option("--sample", metavar="ID", help="With --dry-run: the sample id.")
    ] = None,
    split: Split = None,
    data: Data = None,
    window: ContextLength = None,
    seed: Seed = 0,
    assignments: Assignments = None,
    history: History = "own",
    wording: Wording = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            "--prompts-file",
            metavar="FILE",
            help="Texts that replace those of methods, as --prompts of run.",
            show_default=False,
        ),
    ] = None,
    mask: MaskFile = None,
    json: Json = False,
) -> None:
    """Show a run, one of its samples, or prompts before a run.

    A sample is shown with its messages, answer, references, scores and calls. With --dry-run, the
    prompts that --method would send for --sample are shown; no model is needed. With --prompts, the
    texts that the prompts of --method are made of are printed. Both are in the wording for the
    packaged model unless --wording names the other.
    """
    from personabench.errors import UsageError
    from personabench.models.backends.base import BackendOptions
    from personabench.run.options import Options

    replacements = read_texts(prompts_file)
    chosen_wording = read_wording(wording) or "compact"
    if texts:
        if method is None or run is not None or dry:
            raise UsageError("show --prompts: write `personabench show --prompts --method M`")
        print_prompts(method, task, chosen_wording, replacements, json)
        return
    if dry:
        dry_sample = sample_id or sample
        if method is None or task is None or dry_sample is None or run is not None:
            raise UsageError(
                "show --dry-run: write "
                "`personabench show --dry-run --method M --task T --sample ID`"
            )
        options = Options(
            methods=[method],
            tasks=[task],
            split=split,
            data=data,
            backend="scripted",
            backend_options=BackendOptions(window=window),
            seed=seed,
            assignments=assignments or [],
            wording=chosen_wording,
            prompts=replacements,
            history=history,
            cache="off",
        )
        preview(options, dry_sample, json)
        return
    if run is None or method or sample_id or wording or replacements:
        raise UsageError(
            "show: name a run (`personabench show last`) or preview prompts with --dry-run"
        )
    if mask and sample:
        raise UsageError("show --mask: a mask goes with a run, not with one of its samples")
    _show_run(find_run(run, results), sample, task, data, results, mask, json)


def _show_run(
    folder: RunFolder,
    sample: str | None,
    task: str | None,
    data: Path | None,
    results: Path,
    mask: Path | None,
    json: bool,
) -> None:
    """Print a run, or one of its samples.

    Raises:
        UsageError: there is no such sample, or the run is not of the task.
        DataError: a file of the run is damaged or was changed.
    """
    from personabench.results.index import read_run
    from personabench.results.locate import (
        explain_missing_data,
        find_task,
        load_tasks,
        search_data_in,
    )
    from personabench.results.summary import to_dict

    search_data_in([data] if data else [])
    load_tasks(task, [folder.spec()], results)
    if sample is None:
        scored_run = read_run(folder.path)
        folder.verify(folder.scores_path)
        audited = open_mask(mask, [scored_run])
        if json:
            facts = {**to_dict(scored_run.summary), "folder": str(folder.path)}
            emit(facts | _audited_scores(scored_run, audited))
        else:
            _print_run(scored_run, audited)
        return

    facts = describe_sample(folder, sample, results)
    if facts["references"] is None:
        spec = folder.spec()
        own_task = find_task(spec.task, spec.task_params, spec.task_hash)
        reason = explain_missing_data(own_task, folder.summary())
        echo(f"warning: {reason}; references are missing", err=True)
    if json:
        emit(facts)
    else:
        _print_sample(facts)


def print_prompts(
    method: str,
    task: str | None,
    wording: WordingName,
    replacements: Replacements | None,
    json: bool,
) -> None:
    """Print the texts of a method's prompts, and a task's, in the format of `--prompts FILE`.

    Raises:
        UsageError: no such method, or a replaced text that the method does not have.
    """
    from personabench.api.prompts import Prompts, check_owners, to_toml
    from personabench.api.registry import load_class

    cls = load_class("method", method)
    files = [*(cls.prompts or ()), *(load_class("task", task).prompts if task else ())]
    if replacements is not None:
        check_owners(replacements, files, [cls.name])
    prompts = Prompts(files, wording, replacements)
    if json:
        emit({"method": cls.name, "wording": wording, "prompts": prompts.resolved})
        return

    if not files:
        echo(
            f"# {cls.name}: no texts that can be replaced: it sends the task's wording alone, or "
            "has its texts in its code"
        )
        return
    for file in files:
        about = "".join(
            f"\n#   {name}: {stage.about} Slots: {', '.join(stage.filled) or 'none'}."
            for name, stage in file.stages.items()
        )
        echo(f"# {file.owner}{about}")
    echo(f"\n{to_toml(prompts.resolved)}")


def preview(options: Options, sample_id: str, json: bool) -> None:
    """Print the calls that a method would make for one sample.

    Replies that a later prompt quotes are filler.

    Raises:
        UsageError: no such method, task or sample.
    """
    import asyncio

    from personabench.models.backends.scripted import FILLER
    from personabench.run import plan

    source, planned = asyncio.run(plan.preview(options, sample_id))
    if json:
        calls = [
            {
                "phase": call.phase,
                "max_tokens": call.request.max_tokens,
                "messages": _messages(call.request.messages),
            }
            for call in planned
        ]
        emit({"sample_id": sample_id, "source": source, "calls": calls})
        return

    console = screen()
    has_filler = False
    for call in planned:
        _head(console, f"{call.phase} call, at most {call.request.max_tokens} tokens of answer")
        messages = _messages(call.request.messages)
        _print_messages(console, messages)
        has_filler |= any(FILLER in message["content"] for message in messages)
    _head(console, f"sample {sample_id} of {source}: {len(planned)} call(s), none made")
    if has_filler:
        console.print(f"'{FILLER}' stands for an earlier reply.", style="dim")


def _audited_scores(run: Run, mask: Mask | None) -> dict[str, Any]:
    """The scores of a run without the samples of a mask; nothing without one."""
    if mask is None:
        return {}
    from personabench.leaderboard import BoardOptions, boards

    (board,) = boards([run], options=BoardOptions(thorough=True, mask=mask))
    estimates = board.rows[0].statistics.audited
    scores = {name: [estimate.value, estimate.n] for name, estimate in estimates.items()}
    return {"mask": {"sha256": mask.sha256, "ids": len(mask.ids)}, "audited": scores}


def _print_run(run: Run, mask: Mask | None = None) -> None:
    from personabench.cli.tables import print_boards
    from personabench.leaderboard import BoardOptions, boards
    from personabench.results.summary import to_dict

    console = screen()
    print_boards(boards([run], options=BoardOptions(mask=mask)), console)
    summary = to_dict(run.summary)
    rows = {name: summary[name] for name in ("status", "params", "history")}
    rows |= {"selection": "the users with the longest histories"} if run.summary.selection else {}
    rows["sampling"] = _word_sampling(summary["sampling"])
    rows["seed"] = summary["seed"]
    rows |= {"judge": _word_judge(run.summary)} if run.summary.judge else {}
    rows["failures"] = _count_failures(run.summary)
    rows["parse_failures"] = summary["parse_failures"]
    rows["counters"] = {name: amount for name, amount in summary["counters"].items() if amount}
    rows |= {f"{phase} calls": _word_usage(usage) for phase, usage in summary["usage"].items()}
    rows |= {
        f"{phase} calls of the profiler": _word_usage(usage)
        for phase, usage in summary["profiler_usage"].items()
    }
    # Of the run, as opposed to those of the model, which overlap.
    rows["wall seconds"] = summary["durations"]
    rows |= {name: summary[name] for name in ("command", "harness", "machine", "versions")}
    rows |= {"warnings": "; ".join(summary["warnings"]), "audit": summary["audit"]}
    rows |= {name: summary[name] for name in ("fingerprint", "data_hash", "time")}
    rows["folder"] = str(run.path)
    console.print()
    for name, value in rows.items():
        console.print(f" {name:15} {_plainly(value)}".rstrip(), markup=False, soft_wrap=True)


def _word_sampling(sampling: dict[str, Any]) -> dict[str, Any]:
    """The options of decoding; an allowance that nobody chose is the task's, phase by phase."""
    chosen = sampling["max_tokens"]
    return sampling | {"max_tokens": chosen or "of the task, below with the calls of each phase"}


def _word_judge(summary: Summary) -> str:
    """The judge of a run, its prompt, and the rubric that it scored by."""
    parts = [summary.judged_by or str(summary.judge)[:8]]
    role = summary.roles.get("judge")
    if role is not None:
        facts = {name: fact for name, fact in role.identity.items() if name != "name"}
        parts.append(_plainly(facts))
    rubric = summary.provenance.get("rubric")
    if rubric:
        low, high = rubric["scale"]
        parts.append(f"rubric {rubric['name']}, {low} to {high}")
        for name, criterion in rubric["criteria"].items():
            is_weighted = isinstance(criterion, dict)
            question = criterion["question"] if is_weighted else criterion
            weight = criterion.get("weight", 1) if is_weighted else 1
            parts.append(f"{name} (weight {weight:g}): {question}")
        parts.append(f"sees {', '.join(rubric['shows'])}")
    return "; ".join(parts)


def _count_failures(summary: Summary) -> dict[str, Any]:
    """What went wrong, zeros included: that nothing failed is to be seen as well."""
    counters = summary.counters
    failures = {
        "samples failed": counters.get("request_errors", 0),
        "owed": summary.owed,
        "unparsed": counters.get("parse_failures", 0),
        "empty": counters.get("empty_output", 0),
        "truncated": counters.get("truncated", 0),
        "refused": counters.get("refused", 0),
    }
    if summary.judge:
        failures |= {"unjudged": counters.get("unjudged", 0), "judge errors": summary.judge_errors}
    return failures


def _word_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """The usage of a phase, with the model's seconds told from the run's own."""
    return {"model seconds" if name == "seconds" else name: usage[name] for name in usage}


def _plainly(value: Any) -> str:
    """Format a value of a summary without Python syntax."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plainly(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list):
        return " | ".join(map(_plainly, value)) or "–"
    if value is True or value is False:
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    return "–" if value in (None, "") else str(value)


def _head(console: Console, text: str) -> None:
    console.print(f"── {text}", markup=False, style="dim")


def _print_text(console: Console, text: str) -> None:
    # Rich drops some control characters, which would show less than the model wrote.
    console.print(visible(text), markup=False, soft_wrap=True)


def _print_messages(console: Console, messages: Iterable[dict[str, str]]) -> None:
    for message in messages:
        console.print(message["role"], style="bold", markup=False)
        _print_text(console, message["content"])


def _print_sample(facts: dict[str, Any]) -> None:
    console = screen()
    for call in facts["calls"]:
        origin = "stored" if call["cached"] else "paid"
        tokens = f"{call['input_tokens']} + {call['output_tokens']} tokens"
        answered_by = " of the profiler" if call["by"] else ""
        _head(console, f"{call['phase']} call{answered_by} {call['key'][:12]}, {origin}, {tokens}")
        if call["messages"] is None:
            console.print("messages are not in the cache", style="dim")
        else:
            _print_messages(console, call["messages"])
            if call["thought"]:
                console.print("thought", style="bold")
                _print_text(console, call["thought"])
            console.print("reply", style="bold")
            _print_text(console, call["reply"] or "")
    _head(console, f"sample {facts['sample_id']} of user {facts['user_id']}")
    fields = {**facts, "shown": _word_shown(facts), "evidence": _word_evidence(facts)}
    headings = ["output", "parsed", "references", "shown", "evidence", "values", "flags", "error"]
    if not facts["evidence"]:
        headings.remove("evidence")
    for heading in headings:
        _print_text(console, f"{heading:11} {_plainly(fields[heading])}")


def _word_shown(facts: dict[str, Any]) -> str:
    """The ids of the records that the model saw."""
    ids = facts["shown"]
    if ids is None:
        return ""
    count = f"{len(ids)} record{'' if len(ids) == 1 else 's'}"
    if facts["history"] == "shuffled":
        count += " of another user"
    return f"{count}: {', '.join(ids)}" if ids else count


def _word_evidence(facts: dict[str, Any]) -> str:
    """The ids of the records that hold the evidence, with those that the model did not see."""
    ids = facts["evidence"] or ()
    # Records of another user may have the same ids.
    shown = () if facts["history"] == "shuffled" else facts["shown"] or ()
    missed = [record_id for record_id in ids if record_id not in shown]
    worded = ", ".join(ids)
    return f"{worded}; not shown: {', '.join(missed)}" if missed else worded
