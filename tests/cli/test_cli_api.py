"""Options for paid and remote models: prices, spending, headers that stay secret."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import Command

from personabench.cli.interruption import command_line

RUN = ("run", "-b", "scripted", "-t", "lamp4", "-m", "none", "-n", "6")
HEADER = "header-marker-2718281828"


@pytest.fixture(autouse=True)
def prices(personabench: Command, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text(
        json.dumps({"scripted": {"input": 1.0, "output": 1000000.0}})
    )


def test_what_was_spent_is_said_and_kept(personabench: Command) -> None:
    ended = personabench(*RUN, "--prices", "prices.json", "--json")
    (summary,) = ended.json
    assert ended.code == 0 and summary["spent"] == pytest.approx(
        summary["usage"]["predict"]["output_tokens"], rel=0.01
    )
    assert f"spent  {summary['spent']:.6g}" in ended.err
    again = personabench(*RUN, "--prices", "prices.json", "--cache", "use", "--json")
    assert again.json[0]["spent"] == summary["spent"]


def test_without_prices_nothing_is_said_of_money(personabench: Command) -> None:
    ended = personabench(*RUN, "--json")
    assert ended.json[0]["spent"] is None and "spent" not in ended.err


def test_a_run_stops_before_its_limit_and_goes_on(personabench: Command) -> None:
    ended = personabench(*RUN, "-j", 1, "--prices", "prices.json", "--max-cost", 150)
    assert ended.code == 1 and "Traceback" not in ended.err
    assert "--max-cost 150: stopped with" in ended.err and "Repeat the command" in ended.err
    kept = next(Path("results").rglob("summary.json"))
    first = json.loads(kept.read_text())
    assert 0 < first["spent"] <= 150 and first["status"] == "incomplete" and first["n"] > 0
    assert personabench(*RUN, "--prices", "prices.json", "--max-cost", 10_000).code == 0
    assert json.loads(kept.read_text())["spent"] > first["spent"]


def test_a_limit_of_nothing_calls_nothing(personabench: Command) -> None:
    ended = personabench(*RUN, "--prices", "prices.json", "--max-cost", 0)
    assert ended.code == 1 and "stopped with 0 spent" in ended.err
    (summary,) = (json.loads(path.read_text()) for path in Path("results").rglob("summary.json"))
    assert summary["usage"] == {}


def test_a_limit_without_the_models_price(personabench: Command, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text('{"another": {"input": 1, "output": 2}}')
    ended = personabench(*RUN, "--prices", "prices.json", "--max-cost", 1)
    assert (
        ended.code == 2
        and "--max-cost needs a price for scripted" in ended.err
        and "another" in ended.err
    )


@pytest.mark.parametrize(
    "option", ["--header", "--judge-header", "--simulator-header", "--profile-header"]
)
@pytest.mark.parametrize("form", ["{} X-Team:{}", "{}=X-Team:{}"])
def test_the_command_is_repeated_without_the_values_of_headers(
    monkeypatch: pytest.MonkeyPatch, option: str, form: str
) -> None:
    words = form.format(option, HEADER).split(" ")
    monkeypatch.setattr(
        sys, "argv", ["personabench", "run", *words, "-m", "none", "--set", "a:b=c"]
    )
    said = command_line()
    assert HEADER not in said and "X-Team: ***" in said and said.endswith("-m none --set a:b=c")


def test_a_broken_header_is_not_repeated(personabench: Command) -> None:
    for header in (HEADER, f"{HEADER} x: y", f"X-Team: {HEADER}\n"):
        ended = personabench(
            *RUN,
            "-b",
            "openai",
            "--base-url",
            "http://127.0.0.1:9/v1",
            "--header",
            header + "\u2019",
        )
        assert ended.code == 2 and "--header" in ended.err and HEADER not in ended.err + ended.out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--extra", "messages=[]"), "--extra messages: this field is set by personabench"),
        (("--extra", "temperature=1"), "set by personabench (--temperature)"),
        (("--extra", "service_tier"), "write KEY=JSON"),
        (("--extra", "service_tier=flex"), "text needs double quotes, as in --extra"),
        (("--reasoning", "much"), "write off, low, medium, high or a number of tokens"),
        (("--judge-temperature", "1"), "--judge-temperature: the judge is the model under test"),
        (("--simulator-omit-params", "seed"), "the simulator is the model under test"),
        (("--reasoning", "low"), "only with --backend openai or vllm or local, not scripted"),
    ],
)
def test_options_about_request_fields(
    personabench: Command, given: tuple[str, ...], message: str
) -> None:
    ended = personabench(*RUN, *given)
    assert ended.code == 2 and message in ended.err and "Traceback" not in ended.err


def test_check_backend_prints_what_a_server_takes(personabench: Command) -> None:
    ended = personabench("check", "backend", "-b", "scripted")
    assert ended.code == 0 and "dialect   plain chat completions" in ended.out
    facts = personabench("check", "backend", "-b", "scripted", "--json").json
    assert facts["model"] == "scripted"
    down = personabench(
        "check", "backend", "-b", "openai", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"
    )
    assert down.code == 1 and "http://127.0.0.1:9/v1" in down.err
