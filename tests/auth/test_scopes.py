from __future__ import annotations

import pytest

from gateway.auth.scopes import known_scopes, read_scopes, tool_refused, words_of


@pytest.mark.parametrize(
    ("words", "tool", "pool", "may"),
    [
        ("", "train", "gpu", False),
        ("metrics", "train", "gpu", False),
        ("admin", "train", "gpu", True),
        ("tools:train", "train", "gpu", True),
        ("tools:train", "training", "gpu", False),
        ("tools:train*", "training", "gpu", True),
        ("tools:*", "train", "gpu", True),
        ("pools:gpu", "train", "gpu", True),
        ("pools:gpu", "train", "cpu", False),
        ("tools:train pools:gpu", "train", "gpu", True),
        ("tools:train pools:gpu", "train", "cpu", False),
        ("tools:train pools:gpu", "other", "gpu", False),
        ("tools:train tools:add pools:*", "add", "cpu", True),
    ],
)
def test_a_tool_needs_a_word_for_it_and_one_for_its_pool_where_there_are_such(words: str, tool: str, pool: str, may: bool) -> None:
    assert read_scopes(words.split()).may_run(tool, pool) is may


@pytest.mark.parametrize(("words", "may"), [("", False), ("metrics", False), ("tools:a", True), ("pools:p", True), ("pools:q", False)])
def test_a_pool_is_shown_to_who_may_use_it(words: str, may: bool) -> None:
    assert read_scopes(words.split()).may_use("p") is may


@pytest.mark.parametrize("word", ["tool:a", "tools:", "tools:a b", "tools:**", "tools:*a", "Admin", "pools:ü"])
def test_a_word_that_is_no_scope_is_named(word: str) -> None:
    with pytest.raises(ValueError, match="is no scope; known: tools:NAME"):
        read_scopes(["admin", word])


def test_an_identity_providers_other_words_grant_nothing() -> None:
    assert known_scopes(["openid", "profile", "tools:", "tools:a"]) == read_scopes(["tools:a"])


def test_words_and_grants_are_the_same_thing() -> None:
    words = ["tools:a", "tools:b*", "pools:*", "metrics", "admin"]
    assert words_of(read_scopes(words)) == words


@pytest.mark.parametrize(
    ("words", "needed"), [("", "tools:t"), ("tools:other", "tools:t"), ("tools:t pools:q", "pools:p"), ("pools:p tools:x", "tools:t")]
)
def test_a_refusal_names_the_word_that_is_missing(words: str, needed: str) -> None:
    error = tool_refused(read_scopes(words.split()), "t", "p")
    assert (error.problem, error.extra) == ("scope-missing", {"scope": needed})
    assert needed in error.detail
