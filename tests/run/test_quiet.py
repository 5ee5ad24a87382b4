"""Errors of sensitive tasks: their kind and place, never their words."""

from __future__ import annotations

import logging
import sys

import pytest

from personabench.errors import BackendDown, BackendError, Refused, TransientError
from personabench.run.quiet import WordlessTracebacks, describe, withhold

WORDS = "zebrawood"


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (Refused(WORDS, 403), "Refused, status 403"),
        (TransientError(WORDS, kind="timeout"), "TransientError (timeout)"),
        (BackendError(WORDS), "BackendError"),
        (BackendDown(WORDS), "refuses every call"),
        (ValueError(WORDS), "ValueError"),
    ],
)
def test_the_kind_of_an_error_stays_and_its_words_do_not(error: Exception, fact: str) -> None:
    assert fact in withhold(error) and "words are withheld" in withhold(error)
    assert WORDS not in withhold(error)
    assert describe(error, sensitive=False) == WORDS
    assert describe(error, sensitive=True) == withhold(error)


def fail() -> None:
    try:
        raise ValueError(WORDS)
    except ValueError as error:
        raise RuntimeError(f"explained: {WORDS}") from error


def test_the_place_of_the_cause_is_named() -> None:
    with pytest.raises(RuntimeError) as caught:
        fail()
    assert withhold(caught.value).startswith("ValueError (test_quiet.py, line ")


def test_a_traceback_keeps_its_lines_of_code_alone() -> None:
    try:
        fail()
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", None, sys.exc_info())
    assert WordlessTracebacks().filter(record)
    text = logging.Formatter().format(record)
    assert "in fail" in text and "ValueError (test_quiet.py" in text
    assert WORDS not in text
