from __future__ import annotations

import pytest

from gateway.auth.keys import KeyRing, hash_of, line_of, new_secret, read_keys
from gateway.auth.scopes import read_scopes


def test_a_key_is_found_by_its_text_alone() -> None:
    secret = new_secret()
    ring = KeyRing(read_keys(line_of("ci", secret, ["tools:train", "pools:gpu"])))
    caller = ring.find(secret)
    assert caller is not None
    assert (caller.id, caller.grants, caller.expires_at) == ("key:ci", read_scopes(["tools:train", "pools:gpu"]), None)
    assert ring.find(secret[:-1]) is None
    assert ring.find(hash_of(secret)) is None
    assert ring.find("") is None


def test_secrets_are_long_and_differ() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert len(first) == len("gw_") + 43


def test_a_stored_key_shows_neither_its_text_nor_its_hash_in_a_repr() -> None:
    secret = new_secret()
    (key,) = read_keys(line_of("ci", secret, ["admin"]))
    assert secret not in repr(key)
    assert hash_of(secret).removeprefix("sha256:")[:16] not in repr(key)
    assert repr(key.digest)[2:-1] not in repr(key)


def test_replacing_the_keys_is_one_step_and_leaves_none_of_the_old() -> None:
    old, new = new_secret(), new_secret()
    ring = KeyRing(read_keys(line_of("a", old, ["admin"])))
    ring.replace(read_keys(line_of("b", new, ["admin"])))
    assert (ring.find(old), len(ring)) == (None, 1)
    assert ring.find(new) is not None


def test_lines_may_have_comments_and_semicolons_may_end_them() -> None:
    one, two = line_of("one", new_secret(), ["admin"]), line_of("two", new_secret(), ["metrics"])
    assert [key.name for key in read_keys(f"# whose\n\n  {one} ; {two}\n")] == ["one", "two"]


SECRET = "gw_this-is-a-key-that-somebody-stored-as-it-is"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ci", "NAME sha256:HASH SCOPE"),
        (f"ci {SECRET} admin", "ci: the hash is written sha256:"),
        (f"{SECRET}! {SECRET} admin", "a key's name is"),
        (f"ci {hash_of(SECRET)}", "without a scope"),
        (f"ci {hash_of(SECRET)} tool:x", "'tool:x' is no scope"),
        (f"ci {hash_of('a')} admin\nci {hash_of('b')} admin", "line 2: the name 'ci' is there twice"),
        (f"a {hash_of('a')} admin\nb {hash_of('a')} admin", "two names have the same key"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_without_the_secret(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read_keys(text)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("name", "scopes"), [("a b", ["admin"]), ("a", ["admin x"]), ("a", []), ("", ["admin"])])
def test_no_line_is_made_that_could_not_be_read(name: str, scopes: list[str]) -> None:
    with pytest.raises(ValueError, match=r"name|scope"):
        line_of(name, new_secret(), scopes)


def test_a_mark_is_good_for_the_key_it_was_made_of() -> None:
    old, new = new_secret(), new_secret()
    ring = KeyRing(read_keys(line_of("a", old, ["tools:x"])))
    mark = ring.mark("key:a")
    assert mark is not None
    ring.replace(read_keys(line_of("a", old, ["tools:y"])))
    caller = ring.marked("key:a", mark)
    assert caller is not None
    assert caller.grants == read_scopes(["tools:y"])
    ring.replace(read_keys(line_of("a", new, ["tools:y"])))
    assert ring.marked("key:a", mark) is None
    ring.replace([])
    assert (ring.marked("key:a", mark), ring.mark("key:a")) == (None, None)
