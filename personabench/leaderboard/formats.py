"""Boards as people and programs read them: cells, and Markdown, LaTeX, CSV and JSON made of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from personabench.leaderboard.board import WORDS, Board
from personabench.leaderboard.costs import per_unit
from personabench.leaderboard.curves import families, remarks, shown
from personabench.results.csv_rows import write_csv

GAINS = ("gain", "shuffled_gain", "trivial_gain")
SHARES = ("hurt_users", "hurt_samples", "cached_share")
_RAISED = dict(zip("abcdefghijklmnoprstuvwxyz-", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ⁻", strict=True))


def cell(name: str, value: Any) -> str:
    """A row's value as people read it: four decimals for scores, thousands separated for counts."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.1f}" if name == "seconds" or abs(value) >= 100 else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def text(name: str, row: Mapping[str, Any]) -> str:
    """What a board shows of a row in one of its columns: scores with half their interval, gains with a sign."""
    value = row.get(name)
    if name == "label":
        return f"{value} †" if row.get("personal") is False else str(value)
    if name in GAINS and value is not None:
        return f"{value + 0.0:+.4f}{_half(row, f'{name}_low', f'{name}_high')}"
    if name.endswith("_p") and value is not None:
        return "<0.001" if value < 0.001 else f"{value:.3f}"
    if name in SHARES and value is not None:
        return f"{value:.0%}"
    if name == "wins":
        return (
            "–"
            if row["win_users"] is None
            else "/".join(str(row[f"{way}_users"]) for way in ("win", "tie", "loss"))
        )
    if name == "quantiles":
        parts = [row[f"gain_p{at}"] for at in (10, 50, 90)]
        return "–" if None in parts else " ".join(f"{part + 0.0:+.3f}" for part in parts)
    if name == "frontier":
        return "✓" if value else ""
    if name in ("offline_tokens", "online_tokens"):
        spent = per_unit(row, name.removesuffix("_tokens"))
        return "–" if spent is None else thousands(spent)
    if name.endswith("_price") and value is not None:
        return f"{value:.3g}"
    return cell(name, value) + _half(row, f"{name}/low", f"{name}/high")


def _half(row: Mapping[str, Any], low: str, high: str) -> str:
    ends = row.get(low), row.get(high)
    if ends[0] is None or ends[1] is None:
        return ""
    return f" ±{(ends[1] - ends[0]) / 2:.3f}"


def thousands(count: float) -> str:
    """A count in at most five characters."""
    return (
        f"{count / 1e6:.1f}M"
        if count >= 1e6
        else f"{count / 1e3:.1f}k"
        if count >= 1000
        else str(round(count))
    )


def beaten(board: Board, row: Mapping[str, Any]) -> str:
    """The letters of the rows that a row beats, three and more neighbours as a range: "b,d-g"."""
    places = [at for at, other in enumerate(board.rows) if other["label"] in row["beats"]]
    places = [at for at in places if board.rows[at]["setting"] == row["setting"]]
    parts: list[list[int]] = []
    for at in places:
        if parts and at == parts[-1][-1] + 1:
            parts[-1].append(at)
        else:
            parts.append([at])
    names = [[board.rows[at]["letter"] for at in part] for part in parts]
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 2 else ",".join(part) for part in names)


def raised(letters: str) -> str:
    """Letters as superscripts of plain text; those without one stay as they are."""
    return "".join(_RAISED.get(letter, letter) for letter in letters.replace(",", ""))


def headed(board: Board, columns: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """A board's title and columns, with what is the same in every row moved into the title, and zeros left out."""
    kept, title = dict(columns), board.title
    models = {row["model"] for row in board.rows}
    sizes = {(row["n"], row["users"]) for row in board.rows}
    if len(models) == 1:
        title += f" · {models.pop()}"
        del kept["model"]
    if len(sizes) == 1:
        ((n, users),) = sizes
        title += f" · n={n}, {users} user{'s' * (users != 1)}"
        del kept["n"], kept["users"]
    for name in ("failed", "owed"):
        if not any(row[name] for row in board.rows):
            del kept[name]
    return title, kept


def as_markdown(found: Sequence[Board], wide: bool = False) -> str:
    """Boards as Markdown tables."""
    parts = []
    for board in found:
        columns = board.all_columns if wide else board.columns
        lines = [f"### {board.title}", "", "| " + " | ".join(columns.values()) + " |"]
        lines.append("|" + "|".join("---" if name in WORDS else "---:" for name in columns) + "|")
        for row in board.rows:
            cells = []
            for name in columns:
                shown = text(name, row).replace("|", "\\|")
                if name == board.primary:
                    shown = f"**{shown}**" if row["leader"] else shown
                    shown += f"<sup>{beaten(board, row)}</sup>" if row["beats"] else ""
                cells.append(shown)
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join([*lines, "", *(f"- {note}" for note in board.notes)]))
    return "\n\n".join(parts)


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_TEX |= {
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "–": "--",
    "−": "$-$",
}
_TEX |= {"†": r"\dag{}", "≤": r"$\leq$", "<": r"\textless{}", ">": r"\textgreater{}"}


def _tex(plain: str) -> str:
    return "".join(_TEX.get(character, character) for character in plain)


def as_latex(found: Sequence[Board], wide: bool = False) -> str:
    """Boards as LaTeX tables for the booktabs package, title and notes as caption."""
    parts = []
    for board in found:
        title, columns = headed(board, board.all_columns if wide else board.columns)
        align = "".join("l" if name in WORDS else "r" for name in columns)
        heads = " & ".join(_tex(heading) for heading in columns.values())
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            rf"{heads} \\",
            r"\midrule",
        ]
        for row in board.rows:
            cells = []
            for name in columns:
                shown = _tex(text(name, row))
                if name == board.primary:
                    shown = rf"\textbf{{{shown}}}" if row["leader"] else shown
                    shown += rf"\textsuperscript{{{beaten(board, row)}}}" if row["beats"] else ""
                cells.append(shown)
            lines.append(" & ".join(cells) + r" \\")
        caption = " ".join(_tex(each) for each in (f"{title}.", *board.notes))
        lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def curve_title(points: Sequence[Mapping[str, Any]]) -> str:
    """What a curve is of: where, whose, and which score against what."""
    first = points[0]
    where = f"{first['task']}/{first['separation']}/{first['split']}"
    return (
        f"{where} · {first['model']} · {first['name']}: {first['metric']} against {first['over']}"
    )


def curves_as_text(points: Sequence[Mapping[str, Any]]) -> str:
    """Points of curves as lines for a terminal, curve by curve."""
    lines = []
    for curve in families(points):
        lines.append(curve_title(curve))
        for point in curve:
            ends = "" if point["low"] is None else f"  [{point['low']:.4f}, {point['high']:.4f}]"
            size = f"n={point['n']}" + (
                "" if point["n"] == point["run_n"] else f" of {point['run_n']}"
            )
            apart = "" if point["joined"] else "  not joined"
            lines.append(f"  {shown(point['x']):>8}  {point['value']:.4f}{ends}  {size}{apart}")
        lines += [f"  {sentence}" for sentence in remarks(curve)]
    return "\n".join(lines)


def _curve_cells(curve: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of one curve's table."""
    first = curve[0]
    heads = [
        first["over"],
        first["metric"],
        "95 % interval",
        "n",
        "n of the run",
        "joined",
        "offline /user",
    ]
    cells = []
    for point in curve:
        ends = "–" if point["low"] is None else f"[{point['low']:.4f}, {point['high']:.4f}]"
        spent = [
            "–" if point[side] is None else thousands(point[side])
            for side in ("offline_tokens", "online_tokens")
        ]
        sizes = [str(point["n"]), str(point["run_n"]), "yes" if point["joined"] else "no"]
        cells.append([shown(point["x"]), f"{point['value']:.4f}", ends, *sizes, *spent])
    return [*heads, "online /query"], cells


def curves_as_markdown(points: Sequence[Mapping[str, Any]]) -> str:
    """Points of curves as a Markdown table a curve."""
    parts = []
    for curve in families(points):
        heads, cells = _curve_cells(curve)
        rows = [[_bar(text) for text in row] for row in (heads, ["---:"] * len(heads), *cells)]
        lines = [f"### {curve_title(curve)}", "", *(f"| {' | '.join(row)} |" for row in rows), ""]
        parts.append(
            "\n".join([*lines, *(f"- {sentence}" for sentence in remarks(curve))]).rstrip("\n")
        )
    return "\n\n".join(parts)


def curves_as_latex(points: Sequence[Mapping[str, Any]]) -> str:
    """Points of curves as a LaTeX table a curve, for the booktabs package."""
    parts = []
    for curve in families(points):
        heads, cells = _curve_cells(curve)
        head, *body = [" & ".join(_tex(text) for text in row) + r" \\" for row in (heads, *cells)]
        caption = " ".join(_tex(text) for text in (f"{curve_title(curve)}.", *remarks(curve)))
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{{'r' * len(heads)}}}",
            r"\toprule",
            head,
            r"\midrule",
        ]
        lines += [
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{caption}}}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _bar(text: str) -> str:
    return text.replace("|", "\\|")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as one CSV; lists and objects are JSON text, a value that a row lacks is empty."""
    columns = dict.fromkeys(name for row in rows for name in row)
    out = io.StringIO(newline="")
    write_csv(out, columns, rows)
    return out.getvalue().rstrip("\n")


def as_csv(found: Sequence[Board]) -> str:
    """All rows of all boards as one CSV; parameters and lists are JSON text, a value that a row lacks is empty."""
    return table([row for board in found for row in board.rows])


def as_json(found: Sequence[Board]) -> str:
    """All rows of all boards as one JSON list."""
    rows = [row for board in found for row in board.rows]
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()
