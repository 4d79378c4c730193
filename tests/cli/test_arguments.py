from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.arguments import read
from gateway.cli.terminal import WrongUsage
from tests.conftest import TYPED_SCHEMA


def from_words(*words: str, stdin: str = "") -> dict[str, Any]:
    return read(words, lambda: TYPED_SCHEMA, lambda: stdin)


def test_values_are_typed_by_the_schema() -> None:
    assert from_words("whole=5", "text=5", "flag=true", "numbers=1", "numbers=2", "text=a=b") == {
        "whole": 5,
        "text": ["5", "a=b"],
        "flag": True,
        "numbers": [1, 2],
    }


def test_a_file_is_a_value_typed_likewise(tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text('{"not": "parsed"}\n')
    (tmp_path / "numbers.json").write_text("[1, 2]")
    words = (f"text=@{tmp_path}/prompt", f"numbers=@{tmp_path}/numbers.json", f"options=@{tmp_path}/prompt")
    assert from_words(*words) == {"text": '{"not": "parsed"}\n', "numbers": [1, 2], "options": {"not": "parsed"}}


def test_stdin_is_a_value_or_all_of_them() -> None:
    assert from_words("text=@-", stdin="from a pipe") == {"text": "from a pipe"}
    assert from_words("-", "whole=2", stdin='{"whole": 1, "flag": false}') == {"whole": 2, "flag": False}


def test_a_file_of_arguments_comes_behind_what_is_written_out(tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text('{"whole": 1, "real": 0.5}')
    assert from_words("whole=2", f"@{tmp_path}/args.json") == {"whole": 2, "real": 0.5}


def test_an_at_sign_is_doubled_and_a_dash_is_a_value() -> None:
    assert from_words("text=@@home", "level=-") == {"text": "@home", "level": "-"}


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["epochs"], "", "'epochs' is no argument; they are written key=value"),
        (["=5"], "", "written key=value"),
        (["text=@/nowhere/to/be/found"], "", "/nowhere/to/be/found: "),
        (["@/nowhere/to/be/found"], "", "/nowhere/to/be/found: "),
        (["-"], "[1]", "stdin: it must be a JSON object"),
        (["-"], "{", "stdin: it is no JSON"),
        (["options=" + "[" * 100 + "]" * 100], "", "nested deeper"),
    ],
)
def test_what_is_no_argument_is_named(words: list[str], stdin: str, said: str) -> None:
    with pytest.raises(WrongUsage, match=said.replace("[", r"\[")):
        from_words(*words, stdin=stdin)


def test_the_schema_is_asked_for_where_it_is_needed() -> None:
    def never() -> Any:
        raise AssertionError

    ask: Callable[[], Any] = never
    assert read([], ask, lambda: "") == {}
    assert read(["-"], ask, lambda: "{}") == {}
