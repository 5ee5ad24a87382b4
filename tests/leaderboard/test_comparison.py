"""The statistics of boards and of two runs, on run folders with invented scores: alignment, seeds,
controls, guards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from synthetic_scores import (
    EACH,
    USERS,
    draw_scores,
    list_rows,
    make_board,
    make_rows,
    seal_scores,
    spent,
    write_run,
)

from personabench.leaderboard import as_latex, as_markdown, boards, curves
from personabench.leaderboard.curves import remarks
from personabench.leaderboard.formats import beaten, raised
from personabench.leaderboard.formats import text as cell_text
from personabench.leaderboard.stats import Scores, holm
from personabench.report.groups import gather
from personabench.report.user_scores import user_gains
from personabench.results.index import Run
from personabench.results.published import Vector, vector

# --- one setting ----------------------------------------------------------------------------------


def test_gains_are_those_of_the_statistics_whatever_the_order_of_lines(tmp_path: Path) -> None:
    write_run(tmp_path, "none", draw_scores(seed=1))
    write_run(tmp_path, "rag", draw_scores(0.2, seed=2))
    found = make_rows(tmp_path)
    users = [f"u{number // EACH}" for number in range(USERS * EACH)]
    expected = Scores([draw_scores(seed=1), draw_scores(0.2, seed=2)], users).compare(1, 0)
    rag = found["rag"]
    assert rag["gain"] == pytest.approx(expected.gain.value, abs=1e-12)
    assert rag["gain_low"] == pytest.approx(expected.gain.low, abs=0.02)
    assert (rag["gain_over"], rag["gain_n"], rag["tests"]) == ("none", 60, 1)
    assert rag["gain_p"] == rag["gain_p_raw"] < 0.01
    assert rag["rouge-1/low"] < rag["rouge-1"] < rag["rouge-1/high"]
    assert (rag["beats"], rag["leader"], found["none"]["leader"]) == (["none"], True, False)
    assert expected.by_user and rag["win_users"] == expected.by_user.win
    assert rag["hurt_users"] == rag["loss_users"] / USERS
    assert found["none"]["gain"] is None and found["none"]["gain_p"] is None


def test_all_pairs_of_a_setting_are_one_family(tmp_path: Path) -> None:
    names = ("none", "a", "b", "c")
    for seed, name in enumerate(names):
        write_run(tmp_path, name, draw_scores(0.02 * seed, seed=seed))
    found = make_rows(tmp_path)
    users = [f"u{number // EACH}" for number in range(USERS * EACH)]
    table = Scores([draw_scores(0.02 * seed, seed=seed) for seed in range(4)], users)
    plain = [table.test(i, j)[0] for i in range(4) for j in range(i + 1, 4)]
    corrected = holm(plain)
    for at, name in enumerate(names[1:]):
        assert found[name]["tests"] == 6
        assert found[name]["gain_p"] == pytest.approx(corrected[at] or 0, abs=0.05)


def test_a_lower_error_is_a_gain(tmp_path: Path) -> None:
    write_run(tmp_path, "none", draw_scores(0.5, seed=1), metric="MAE", higher=False, task="lamp3")
    write_run(tmp_path, "rag", draw_scores(0.1, seed=2), metric="MAE", higher=False, task="lamp3")
    found = make_board(tmp_path)
    assert [row["label"] for row in list_rows(found)] == ["rag", "none"]
    assert list_rows(found)[0]["gain"] > 0.3 and list_rows(found)[0]["beats"] == ["none"]


def test_corpus_metrics_are_resampled_as_such(tmp_path: Path) -> None:
    for name, shift in (("none", 1.0), ("rag", 0.5)):
        errors = np.abs(draw_scores(shift, seed=len(name)))
        values = {"MAE": errors.tolist(), "RMSE": (errors**2).tolist()}
        write_run(tmp_path, name, values, higher=False, task="lamp3")
    rag = make_rows(tmp_path, thorough=True)["rag"]
    assert rag["RMSE"] == pytest.approx(
        float(np.sqrt(np.mean(np.abs(draw_scores(0.5, seed=3)) ** 2)))
    )
    assert rag["RMSE/low"] < rag["RMSE"] < rag["RMSE/high"]
    assert rag["RMSE/gain/low"] < rag["RMSE/gain"] < rag["RMSE/gain/high"]
    assert "RMSE/low" not in make_rows(tmp_path)["rag"]


def test_only_rows_of_one_setting_are_compared(tmp_path: Path) -> None:
    for model, shift in (("tiny", 0.0), ("big", 0.5)):
        write_run(tmp_path, "none", draw_scores(shift, seed=1), model={"name": model})
        write_run(tmp_path, "rag", draw_scores(shift + 0.2, seed=2), model={"name": model})
    found = make_board(tmp_path)
    by_name = {(row.label, row.model): row for row in found.rows}
    for model in ("tiny", "big"):
        row = by_name["rag", model].columns
        assert row["tests"] == 1 and row["beats"] == ["none"] and row["leader"]
        assert row["gain"] == pytest.approx(0.2, abs=0.1)
    assert beaten(found, by_name["rag", "big"]) == by_name["none", "big"].letter


def test_rows_on_different_samples_are_compared_on_those_of_both(tmp_path: Path) -> None:
    whole = draw_scores(seed=1)
    write_run(tmp_path, "none", whole)
    write_run(tmp_path, "rag", whole[30:] + 0.25, samples=range(30, 60))
    found = make_board(tmp_path)
    rag = next(row for row in list_rows(found) if row["label"] == "rag")
    assert (rag["n"], rag["gain_n"]) == (30, 30)
    assert rag["gain"] == pytest.approx(0.25)
    assert any("samples of both rows" in note for note in found.notes)
    write_run(tmp_path, "apart", whole[:30], samples=range(1000, 1030))
    assert make_rows(tmp_path)["apart"]["gain"] is None


@pytest.mark.parametrize("baseline", ["rag", "rag (k=2)"])
def test_gains_are_over_the_row_asked_for(tmp_path: Path, baseline: str) -> None:
    write_run(tmp_path, "none", draw_scores(seed=1))
    write_run(tmp_path, "rag", draw_scores(0.2, seed=2), params={"k": 2})
    found = make_rows(tmp_path, baseline=baseline)
    assert found["none"]["gain_over"] == "rag (k=2)" and found["none"]["gain"] < 0


def test_without_a_baseline_there_are_intervals_and_a_remedy(tmp_path: Path) -> None:
    write_run(tmp_path, "a", draw_scores(seed=1))
    write_run(tmp_path, "b", draw_scores(seed=2))
    found = make_board(tmp_path)
    assert "gain" not in found.columns and list_rows(found)[0]["rouge-1/low"] is not None
    assert any("No single row 'none'" in note for note in found.notes)


# --- controls -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shuffled", "personal"), [(0.0, True), (0.3, False)])
def test_a_gain_that_does_not_survive_the_shuffle_is_marked(
    tmp_path: Path, shuffled: float, personal: bool
) -> None:
    write_run(tmp_path, "none", draw_scores(seed=1))
    write_run(tmp_path, "rag", draw_scores(0.3, seed=2), params={"k": 4})
    write_run(tmp_path, "rag", draw_scores(shuffled, seed=3), params={"k": 4}, history="shuffled")
    write_run(tmp_path, "rag", draw_scores(0.1, seed=4), params={"k": 2})
    found = make_board(tmp_path)
    by_label = {row["label"]: row for row in list_rows(found)}
    row = by_label["rag (k=4)"]
    assert row["personal"] is personal
    assert row["shuffled_gain"] == pytest.approx(0.3 - shuffled, abs=0.1)
    assert by_label["rag (k=2)"]["personal"] is None
    text = as_markdown([found])
    assert ("rag (k=4) † |" in text) is not personal
    assert any(note.startswith("† rag (k=4):") for note in found.notes) is not personal


def test_whether_a_gain_is_personal_does_not_hang_on_how_many_rows_a_table_holds(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, "none", draw_scores(seed=1))
    write_run(tmp_path, "rag", draw_scores(0.06, seed=2))
    write_run(tmp_path, "rag", draw_scores(0.02, seed=3), history="shuffled")
    before = make_rows(tmp_path)["rag"]
    assert (before["tests"], before["controls"]) == (2, 1)
    assert before["shuffled_gain_p"] == before["shuffled_gain_p_raw"] > 0
    for seed in range(4, 12):
        write_run(tmp_path, f"other{seed}", draw_scores(0.06, seed=seed))
    after = make_rows(tmp_path)["rag"]
    assert (after["tests"], after["controls"]) == (54, 1)
    assert after["shuffled_gain_p"] == pytest.approx(before["shuffled_gain_p"], abs=0.01)
    assert after["gain_p"] > before["gain_p"]

    write_run(tmp_path, "other4", draw_scores(0.0, seed=12), history="shuffled")
    twice = make_rows(tmp_path)
    assert {row["controls"] for row in twice.values()} == {2}
    plain = [twice[name]["shuffled_gain_p_raw"] for name in ("rag", "other4")]
    assert [twice[name]["shuffled_gain_p"] for name in ("rag", "other4")] == holm(plain)


def test_the_best_predictor_without_a_model_is_a_control(tmp_path: Path) -> None:
    write_run(tmp_path, "none", draw_scores(seed=1))
    write_run(tmp_path, "counting", draw_scores(0.1, seed=2), usage={})
    write_run(tmp_path, "guessing", draw_scores(-0.1, seed=3), usage={})
    write_run(tmp_path, "rag", draw_scores(0.3, seed=4))
    found = make_rows(tmp_path)
    assert (found["rag"]["trivial_gain_over"], found["none"]["trivial_gain_over"]) == (
        "counting",
        "counting",
    )
    assert (
        found["rag"]["trivial_gain"] == pytest.approx(0.2, abs=0.1)
        and found["none"]["trivial_gain"] < 0
    )
    assert found["guessing"]["trivial_gain"] is None


def rule_note(folder: Path) -> str:
    (note,) = [note for note in make_board(folder).notes if "ule without a model" in note]
    return note


def test_a_board_names_the_best_rule_and_what_does_not_beat_it(tmp_path: Path) -> None:
    write_run(tmp_path, "none", draw_scores(seed=1))
    write_run(tmp_path, "rag", draw_scores(0.5, seed=4))
    assert rule_note(tmp_path).startswith("No rule without a model is among the rows")
    assert rule_note(tmp_path).endswith(
        "Rules that run on lamp4: constant, copy_input, copy_nearest."
    )

    # By the flag of the method, whatever its name and calls; a rule that has seen golds is none.
    write_run(tmp_path, "mine", draw_scores(0.1, seed=2), told={"rule": True})
    told = {"rule": True, "privileged": True}
    write_run(tmp_path, "seen", draw_scores(0.9, seed=3), told=told, usage={})
    found = make_rows(tmp_path)
    assert found["rag"]["trivial_gain_over"] == "mine"
    score = f"{found['mine']['rouge-1']:.4f}"
    assert (
        rule_note(tmp_path) == f"Best rule without a model: mine ({score}). Do not beat it: none."
    )

    write_run(tmp_path, "close", draw_scores(0.15, seed=5))
    assert rule_note(tmp_path).endswith("none. Ahead of it, but not significantly: close.")


def test_every_method_may_beat_the_best_rule(tmp_path: Path) -> None:
    write_run(tmp_path, "counting", draw_scores(0.1, seed=2), usage={})
    write_run(tmp_path, "rag", draw_scores(0.5, seed=4))
    assert rule_note(tmp_path).endswith("Every method beats it significantly.")


# --- seeds ----------------------------------------------------------------------------------------


def test_seeds_are_pooled_and_both_sources_of_variance_shown(tmp_path: Path) -> None:
    each = [draw_scores(0.2, seed=seed) for seed in (5, 6, 7)]
    for seed, scores in enumerate(each):
        write_run(tmp_path, "rag", scores, seed=seed)
        write_run(tmp_path, "none", draw_scores(), seed=seed)
    found = make_board(tmp_path)
    assert [row["label"] for row in list_rows(found)] == ["rag", "none"]
    rag, none = list_rows(found)
    assert rag["seeds"] == [0, 1, 2]
    assert rag["seed_values"] == pytest.approx([float(scores.mean()) for scores in each])
    assert rag["rouge-1"] == pytest.approx(float(np.mean(each)))
    assert rag["seed_sd"] == pytest.approx(
        float(np.std([scores.mean() for scores in each], ddof=1))
    )
    assert none["seed_sd"] == 0 and rag["rouge-1/low"] is not None and rag["n"] == 60
    assert (rag["calls"], rag["online_calls"]) == (60, 1)
    assert any("rag: mean of seeds 0, 1, 2; standard deviation" in note for note in found.notes)


def test_of_rows_that_differ_in_seeds_and_samples_the_largest_is_the_baseline(
    tmp_path: Path,
) -> None:
    whole = draw_scores(seed=1)
    write_run(tmp_path, "none", whole)
    for seed in (1, 2):
        write_run(tmp_path, "none", whole[:12], seed=seed)
        write_run(tmp_path, "rag", whole[:12] + 0.25, seed=seed)
    found = make_board(tmp_path)
    assert sorted(row["n"] for row in list_rows(found) if row["method"] == "none") == [
        12,
        len(whole),
    ]
    (rag,) = (row for row in list_rows(found) if row["label"] == "rag")
    assert rag["gain"] == pytest.approx(0.25)


def test_seeds_of_a_corpus_metric_are_averaged_as_metrics(tmp_path: Path) -> None:
    each = [np.abs(draw_scores(1, seed=seed)) for seed in (5, 6)]
    for seed, errors in enumerate(each):
        write_run(
            tmp_path, "rag", {"RMSE": (errors**2).tolist()}, higher=False, task="lamp3", seed=seed
        )
    write_run(tmp_path, "none", {"RMSE": (each[0] ** 2 + 1).tolist()}, higher=False, task="lamp3")
    rag = make_rows(tmp_path)["rag"]
    assert rag["RMSE"] == pytest.approx(np.mean([np.sqrt(np.mean(errors**2)) for errors in each]))
    assert rag["gain"] > 0 and rag["win_users"] is None


def test_a_seed_on_another_number_of_samples_is_its_own_row(tmp_path: Path) -> None:
    write_run(tmp_path, "rag", draw_scores(seed=1))
    write_run(tmp_path, "rag", draw_scores(seed=2)[:30], seed=1)
    assert set(make_rows(tmp_path)) == {"rag", "rag (seed=1)"}


# --- guards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "users", "reason"),
    [
        ([0.5], 1, "one user"),
        ([0.5, 0.6, 0.7], 1, "one user"),
        ([0.1, 0.2, 0.3, 0.4], 4, "4 users"),
        ([0.5] * 12, 12, "all users score the same"),
    ],
)
def test_what_cannot_be_said_is_left_out_with_its_reason(
    tmp_path: Path, scores: list[float], users: int, reason: str
) -> None:
    write_run(tmp_path, "none", np.array(scores), users=users)
    write_run(tmp_path, "rag", np.array(scores), users=users)
    found = make_board(tmp_path)
    for row in list_rows(found):
        assert row["rouge-1/low"] is None and reason in row["no_interval"] and row["beats"] == []
    rag = next(row for row in list_rows(found) if row["label"] == "rag")
    assert (rag["gain"], rag["gain_low"], rag["gain_p"], rag["detectable"]) == (0, None, None, None)
    if users < 6:
        assert "§ No row is ranked: fewer than 6 users, too few for an interval." in found.notes
        assert [cell_text("label", row) for row in found.rows] == ["none §", "rag §"]
    else:
        assert any(f"No interval: {reason}" in note for note in found.notes)
    assert "NaN" not in as_markdown([found]) + as_latex([found])


def test_runs_without_scores_are_rows_without_statistics(tmp_path: Path) -> None:
    run = write_run(tmp_path, "none", draw_scores())
    (run.path / "scores.jsonl").unlink()
    seal_scores(run.path)
    found = make_board(tmp_path)
    assert list_rows(found)[0]["rouge-1"] is not None and "rouge-1/low" not in list_rows(found)[0]
    assert next(iter(found.columns)) == "label"


def test_a_metric_of_a_task_that_is_not_installed_is_a_mean_if_it_is_one(tmp_path: Path) -> None:
    run = write_run(tmp_path, "none", draw_scores())
    for name, stated, known in (("gone", float(draw_scores().mean()), True), ("lost", 17.0, False)):
        changed = msgspec.structs.replace(
            run.summary, task=name, metrics={"official": {"rouge-1": stated}}
        )
        (found,) = boards([Run(changed, run.path)])
        assert ("rouge-1/low" in list_rows(found)[0]) is known


# --- kept statistics ------------------------------------------------------------------------------


def test_statistics_are_kept_until_scores_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import personabench.leaderboard.board_statistics as module

    write_run(tmp_path, "none", draw_scores(seed=1))
    write_run(tmp_path, "rag", draw_scores(0.2, seed=2))
    asked = {"results": tmp_path}
    first = make_rows(tmp_path, **asked)
    computed: list[int] = []
    honest = module.tabulate
    monkeypatch.setattr(module, "tabulate", lambda *words: computed.append(1) or honest(*words))
    assert make_rows(tmp_path, **asked) == first and not computed
    write_run(tmp_path, "rag", draw_scores(0.4, seed=3), time="2026-01-02T00:00:00Z")
    assert make_rows(tmp_path, **asked)["rag"]["gain"] > first["rag"]["gain"] and computed == [1]
    for kept in (tmp_path / "statistics").glob("*.json"):
        kept.write_text("{")
    assert make_rows(tmp_path, **asked)["rag"]["gain"] > first["rag"]["gain"] and computed == [1, 1]


# --- costs and curves -----------------------------------------------------------------------------


def test_costs_are_per_user_offline_and_per_query_online(tmp_path: Path) -> None:
    phase = {"cached": 5, "seconds": 2.0}
    usage = {
        "prepare": {"calls": 20, "input_tokens": 2000, "output_tokens": 0, **phase},
        "profile": {"calls": 20, "input_tokens": 4000, "output_tokens": 400, **phase},
        "predict": {"calls": 60, "input_tokens": 6000, "output_tokens": 600, **phase},
        "judge": {"calls": 60, "input_tokens": 9000, "output_tokens": 900, **phase},
    }
    write_run(tmp_path, "summary", draw_scores(0.3, seed=1), usage=usage)
    write_run(tmp_path, "none", draw_scores(seed=2))
    prices = {"tiny": {"input": 10.0, "output": 100.0}}
    row = make_rows(tmp_path, prices=prices, queries=10)["summary"]
    assert (row["offline_calls"], row["offline_input_tokens"], row["offline_output_tokens"]) == (
        2,
        300,
        20,
    )
    assert (row["online_calls"], row["online_input_tokens"], row["online_output_tokens"]) == (
        1,
        100,
        10,
    )
    assert (row["calls"], row["input_tokens"], row["cached_share"]) == (100, 12_000, 15 / 100)
    assert (row["judge_calls"], row["judge_tokens"], row["simulator_calls"]) == (60, 9900, 0)
    board = make_board(tmp_path)
    assert "judge_tokens" in board.all_columns and "simulator_tokens" not in board.all_columns
    assert row["offline_price"] == pytest.approx(5e-3) and row["online_price"] == pytest.approx(
        2e-3
    )
    assert row["query_price"] == pytest.approx(5e-3 / 10 + 2e-3)
    assert row["query_tokens"] == pytest.approx(320 / 10 + 110)
    assert make_rows(tmp_path)["summary"]["queries_per_user"] == 10
    assert make_rows(tmp_path)["summary"]["query_price"] is None


def test_the_frontier_holds_what_nothing_beats_at_its_cost(tmp_path: Path) -> None:
    for name, score, tokens in (
        ("none", 0.1, 100),
        ("good", 0.3, 500),
        ("dear", 0.3, 900),
        ("bad", 0.05, 200),
    ):
        write_run(tmp_path, name, np.full(60, score), usage=spent(tokens))
    found = make_rows(tmp_path)
    assert {name: row["frontier"] for name, row in found.items()} == {
        **{"none": True, "good": True, "dear": False, "bad": False}
    }


def test_curves_join_runs_that_share_everything_else(tmp_path: Path) -> None:
    for at, history in enumerate(("none", "size=2", "size=10", "own")):
        write_run(
            tmp_path,
            "rag",
            draw_scores(0.1 * at, seed=at),
            history=history,
            params={"k": 4, "retriever": "bm25"},
        )
    write_run(tmp_path, "rag", draw_scores(0.1, seed=8), params={"k": 8, "retriever": "bm25"})
    write_run(tmp_path, "rag", draw_scores(0.1, seed=9), params={"k": 16, "retriever": "dense"})
    points = curves([make_board(tmp_path)])
    found: dict[Any, list[Any]] = {}
    for point in points:
        found.setdefault((point.curve, point.over), []).append(point.x)
    assert sorted(found.values(), key=len) == [[4, 8], [0, 2, 10, None]]
    assert {over for _, over in found} == {"history", "k"}
    assert all(point.low < point.value < point.high for point in points)
    assert all(point.online_tokens == 110 and point.offline_tokens == 0 for point in points)


def partial(folder: Path, k: int, samples: range, shift: float = 0.0, **changes: Any) -> None:
    """A run of rag on some of the samples."""
    scores = np.array([draw_scores(noise=0)[number] for number in samples]) + shift
    write_run(folder, "rag", scores, samples=samples, params={"k": k}, **changes)


def test_the_points_of_a_curve_are_compared_on_common_samples(tmp_path: Path) -> None:
    for k, samples in ((1, range(30)), (2, range(9, 45)), (4, range(60))):
        partial(tmp_path, k, samples)
    points = curves([make_board(tmp_path)])
    assert [(point.x, point.n, point.run_n, point.users) for point in points] == [
        (1, 21, 30, 7), (2, 21, 36, 7), (4, 21, 60, 7),
    ]  # fmt: skip
    assert len({(point.value, point.low, point.high) for point in points}) == 1, (
        "the same answers everywhere"
    )
    assert points[0].value == pytest.approx(draw_scores(noise=0)[9:30].mean())
    assert all(point.joined and point.low < point.value for point in points)
    assert remarks(points) == [
        "Compared on the 21 samples of 7 users that all have; the runs have 30, 36, 60. "
        "Tokens are of all samples of a run."
    ]


def test_a_point_without_enough_common_samples_is_not_joined_and_named(tmp_path: Path) -> None:
    for k, samples in ((1, range(30)), (2, range(30)), (4, range(27, 60)), (8, range(30, 60))):
        partial(tmp_path, k, samples)
    points = curves([make_board(tmp_path)])
    assert [(point.x, point.joined, point.n) for point in points] == [
        (1, True, 30), (2, True, 30), (4, False, 33), (8, False, 30),
    ]  # fmt: skip
    assert points[2].value == pytest.approx(draw_scores(noise=0)[27:60].mean())
    assert remarks(points) == [
        "Not joined, with too few samples in common with the others: k=4 (n=33), k=8 (n=30)."
    ]


def test_nothing_is_joined_where_no_two_runs_share_samples(tmp_path: Path) -> None:
    partial(tmp_path, 1, range(30))
    partial(tmp_path, 2, range(30, 60))
    assert [point.joined for point in curves([make_board(tmp_path)])] == [False, False]


def test_a_curve_over_seeds_keeps_the_samples_of_all_seeds_and_runs(tmp_path: Path) -> None:
    for seed in (0, 1):
        partial(tmp_path, 1, range(30), 0.1 * seed, seed=seed)
        partial(tmp_path, 2, range(60), 0.1 * seed, seed=seed)
    points = curves([make_board(tmp_path)])
    assert [(point.n, point.seeds) for point in points] == [(30, [0, 1])] * 2
    assert (
        points[0].value == points[1].value == pytest.approx(draw_scores(noise=0)[:30].mean() + 0.05)
    )


def test_curves_of_one_method_have_different_names(tmp_path: Path) -> None:
    for retriever in ("bm25", "dense"):
        for k in (1, 2):
            write_run(tmp_path, "rag", draw_scores(), params={"k": k, "retriever": retriever})
    names = {point.curve: point.name for point in curves([make_board(tmp_path)])}
    assert sorted(names.values()) == ["rag (retriever=bm25)", "rag (retriever=dense)"]


def test_the_frontier_is_on_common_samples(tmp_path: Path) -> None:
    """A cheap run of the easiest samples does not push off a run that beats it on them."""
    easy = np.argsort(draw_scores(noise=0))
    assert len(easy) == 60
    write_run(tmp_path, "none", draw_scores(noise=0), usage=spent(100))
    write_run(tmp_path, "rag", draw_scores(0.1, noise=0), usage=spent(900))
    lucky = [number for number in range(60) if draw_scores(noise=0)[number] > 0.4]
    write_run(
        tmp_path,
        "lucky",
        np.array([draw_scores(noise=0)[number] for number in lucky]),
        samples=lucky,
        usage=spent(300),
    )  # type: ignore[arg-type]
    write_run(tmp_path, "smoke", np.full(6, 1.0), samples=range(6), usage=spent(10))
    found = make_rows(tmp_path)
    assert found["lucky"]["rouge-1"] > found["rag"]["rouge-1"], "on its own samples"
    assert {name: row["frontier"] for name, row in found.items()} == {
        **{"none": True, "rag": True, "lucky": False, "smoke": None}
    }
    assert (
        found["rag"]["rouge-1/common/n"] == len(lucky) and found["smoke"]["rouge-1/common"] is None
    )
    notes = " ".join(make_board(tmp_path).notes)
    assert f"Frontier: scores on the {len(lucky)} samples" in notes
    assert f"§ Not ranked: {found['smoke']['letter']} (fewer than 6 users" in notes
    assert not any("Frontier" in note for note in make_board(tmp_path).list_notes(["label"]))


def test_gains_of_users_are_on_the_samples_of_both_rows(tmp_path: Path) -> None:
    some = range(0, 60, 2)
    write_run(tmp_path, "none", draw_scores(noise=0))
    write_run(tmp_path, "rag", draw_scores(0.1, noise=0)[some], samples=some)
    (group,) = gather(tmp_path)
    base, rag = sorted(group.rows, key=lambda row: str(row.row.label))
    assert user_gains(rag, base) == pytest.approx([0.1] * USERS)


def test_rows_of_equally_many_but_other_samples_are_noted(tmp_path: Path) -> None:
    partial(tmp_path, 1, range(30))
    partial(tmp_path, 2, range(30, 60))
    assert any(
        note.startswith("Rows do not score the same samples") for note in make_board(tmp_path).notes
    )


def test_pools_of_other_seeds_and_samples_have_different_names(tmp_path: Path) -> None:
    for seed in (0, 1, 2, 3):
        partial(tmp_path, 1, range(30 if seed < 2 else 60), seed=seed)
    assert sorted(make_rows(tmp_path)) == ["rag (k=1, seeds=0,1)", "rag (k=1, seeds=2,3)"]


# --- how it reads ---------------------------------------------------------------------------------


def test_letters_and_leaders_in_print(tmp_path: Path) -> None:
    for at, name in enumerate(("none", "one", "two", "three", "four", "fi_ve")):
        write_run(tmp_path, name, draw_scores(0.4 * min(at, 4), seed=at, noise=0.01))
    found = make_board(tmp_path)
    assert [beaten(found, row) for row in found.rows[:2]] == ["c-f", "c-f"]
    assert raised("c-f") == "ᶜ⁻ᶠ" and raised("q,z") == "qᶻ"
    assert any("Not significantly behind a: b." in note for note in found.notes)
    text, tex = as_markdown([found]), as_latex([found])
    assert text.count("**") == 4 and "<sup>c-f</sup>" in text
    assert r"\textsuperscript{c-f}" in tex and r"fi\_ve" in tex and r"\toprule" in tex
    assert tex.count("&") == (len(list_rows(found)) + 1) * (
        tex.partition(r"\toprule")[2].split(r"\\")[0].count("&")
    )


def test_vectors_are_aligned_by_id(tmp_path: Path) -> None:
    scores = vector(write_run(tmp_path, "none", draw_scores()))
    assert scores.ids == sorted(scores.ids) and isinstance(scores, Vector)
    assert sorted(scores.values["official"]["rouge-1"]) == pytest.approx(sorted(draw_scores()))  # type: ignore[type-var]


# --- ranks ----------------------------------------------------------------------------------------
