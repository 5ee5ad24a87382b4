"""Tokenizers: words of every script, and the one of LaMP's reference implementation."""

from __future__ import annotations

import pytest

from personabench.errors import UsageError
from personabench.retrieval.bm25 import BM25, top
from personabench.retrieval.tokenizers import get_tokenizer, split_words


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Did Ann go?  To PARIS, in 2024.", ["did", "ann", "go", "to", "paris", "in", "2024"]),
        ("snake_case don't", ["snake", "case", "don", "t"]),
        ("don’t", ["don", "t"]),
        ("Café, Straße", ["café", "strasse"]),
        ("cafe\u0301", ["café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("مُحَمَّد", ["مُحَمَّد"]),
        ("黑猫。猫", ["黑猫", "猫"]),
        ("我喜欢黑猫", ["我喜", "喜欢", "欢黑", "黑猫"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("ｶﾀｶﾅ ＡＢＣ", ["カタ", "タカ", "カナ", "abc"]),
        ("고양이가", ["고양", "양이", "이가"]),
        ("GPT4模型", ["gpt4", "模型"]),
        ("กินข้าว", ["กิน", "นข้", "ข้า", "าว"]),
        ("🙂 —", []),
        ("", []),
    ],
)
def test_words_of_every_script(text: str, tokens: list[str]) -> None:
    assert split_words(text) == tokens


def test_a_plain_text_has_the_same_words_beside_another_script() -> None:
    plain = "It's 3 o'clock_now, MR. Smith-Jones!"
    assert split_words(f"{plain} 猫") == [*split_words(plain), "猫"]


def test_an_unknown_tokenizer_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match=r"'wörter'.*words, whitespace"):
        get_tokenizer("wörter")
    with pytest.raises(UsageError, match="unknown tokenizer"):
        get_tokenizer(["words"])  # type: ignore[arg-type]


def test_words_find_what_case_and_punctuation_hide() -> None:
    documents = ["We flew to Paris.", "the garden is in bloom", "I baked bread?", "我养了一只黑猫"]
    words = BM25(documents, tokenizer="words")
    assert top(words.scores("PARIS"), 1) == [0]
    assert top(words.scores("Bread"), 1) == [2]
    assert top(words.scores("黑猫叫什么"), 1) == [3]

    # With whitespace nothing matches, so the last document comes first.
    whitespace = BM25(documents)
    assert not whitespace.has_match("PARIS")
    assert top(whitespace.scores("PARIS"), 1) == [3]
