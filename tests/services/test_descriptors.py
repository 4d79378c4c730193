"""Descriptor sets as directories of methods: what is in them, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from gateway.services import descriptors, directory
from gateway.services.descriptors import DescriptorError, read_descriptor_set
from gateway.services.directory import Directory
from gateway.services.method import Idempotency
from tests.services.compiled import compile_protos, descriptor_set, files
from tests.services.library import LIBRARY


def one_file(name: str, *imports: str, package: str = "test.made") -> FileDescriptorProto:
    return FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=imports)


def test_a_descriptor_set_says_what_reflection_says_and_what_the_comments_do() -> None:
    found = Directory(read_descriptor_set(descriptor_set()))
    assert list(found.services) == [LIBRARY]
    service = found.services[LIBRARY]
    assert service.description == "Books on shelves."
    assert {name: method.idempotency for name, method in service.methods.items() if method.idempotency is not Idempotency.UNKNOWN} == {
        "GetBook": Idempotency.NO_SIDE_EFFECTS,
        "ListBooks": Idempotency.NO_SIDE_EFFECTS,
        "WatchShelf": Idempotency.NO_SIDE_EFFECTS,
        "UpdateBook": Idempotency.IDEMPOTENT,
    }
    method = service.methods["GetBook"]
    assert (method.full_name, method.path, method.description) == (f"{LIBRARY}/GetBook", f"/{LIBRARY}/GetBook", "Returns one book.")
    assert method.input_schema["properties"]["edition"]["description"] == "Which edition; 0 is the newest."
    mood = service.methods["Echo"].output_schema["$defs"]["test.everything.v1.Mood"]
    assert mood["description"] == "How warm it is.\n\n`MOOD_COLD`: Cold."


def test_codecs_are_found_by_names_and_type_urls() -> None:
    found = Directory(files())
    codec = found.codec("type.googleapis.com/test.library.v1.Note")
    assert codec is found.codec("test.library.v1.Note")
    assert codec is not None
    assert codec.to_json(b"\x10\x05") == b'{"number":5}'
    assert found.codec("test.library.v1.Nothing") is None


def test_googles_own_files_need_not_be_there() -> None:
    own = [file for file in files() if not file.name.startswith("google/")]
    assert len(own) < len(files())
    assert Directory(own).methods.keys() == Directory(files()).methods.keys()


def test_an_any_may_hold_googles_own_types_whoever_imports_them() -> None:
    holder = one_file("holder.proto", "google/protobuf/any.proto")
    message = holder.message_type.add(name="Holder")
    message.field.add(name="held", number=1, type=11, label=1, type_name=".google.protobuf.Any")
    codec = Directory([holder]).codec("test.made.Holder")
    assert codec is not None
    for kind, value in (
        ("google.protobuf.StringValue", "text"),
        ("google.protobuf.Struct", {"a": 1.0}),
        ("google.protobuf.Duration", "1.500s"),
    ):
        held = {"held": {"@type": f"type.googleapis.com/{kind}", "value": value}}
        assert json.loads(codec.to_json(codec.from_json(held))) == held
    # A file of another name that defines one of them goes before ours.
    own = one_file("own_wrappers.proto", package="google.protobuf")
    own.message_type.add(name="StringValue").field.add(name="value", number=1, type=9, label=1)
    assert Directory([own]).codec("google.protobuf.StringValue") is not None


def test_an_import_that_is_not_there_is_told_of_with_the_way_out() -> None:
    with pytest.raises(DescriptorError, match=r"library\.proto imports everything\.proto, which is not there; .*--include_imports"):
        Directory([file for file in files() if file.name == "library.proto"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"syntax", "not a descriptor set: make one with protoc --descriptor_set_out=FILE --include_imports"),
        (b"", "has no files"),
        (bytes(descriptors.BYTES_LIMIT + 1), "bytes; allowed: 16,777,216"),
    ],
)
def test_what_is_no_descriptor_set_is_told_of(data: bytes, words: str) -> None:
    with pytest.raises(DescriptorError, match=words):
        read_descriptor_set(data)


def test_files_that_import_one_another_in_a_circle_or_without_end_are_refused() -> None:
    with pytest.raises(DescriptorError, match=r"b\.proto imports a\.proto, and so itself"):
        Directory([one_file("a.proto", "b.proto"), one_file("b.proto", "a.proto")])
    chain = [one_file(f"{number}.proto", f"{number + 1}.proto") for number in range(1_000)]
    with pytest.raises(DescriptorError, match="more than 200 files in a row"):
        Directory([*chain, one_file("1000.proto")])


def test_how_much_there_may_be_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DescriptorError, match="too many descriptors"):
        Directory(one_file(f"{number}.proto") for number in range(descriptors.FILES_LIMIT + 1))
    monkeypatch.setattr(directory, "METHODS_LIMIT", 3)
    with pytest.raises(DescriptorError, match="there are 14 methods; allowed: 3"):
        Directory(files())


def test_a_file_that_makes_no_sense_is_told_of_by_its_name() -> None:
    broken = one_file("broken.proto")
    broken.message_type.add(name="Broken").field.add(name="inner", number=1, type=11, type_name=".test.made.Nothing", label=1)
    with pytest.raises(DescriptorError, match=r"broken\.proto: .*Nothing"):
        Directory([broken])
    twice = [one_file("a.proto"), one_file("b.proto")]
    for file in twice:
        file.message_type.add(name="Twice")
    with pytest.raises(DescriptorError, match=r"b\.proto: .*Twice"):
        Directory(twice)


def test_a_service_that_is_not_there_is_told_of_with_the_nearest_name() -> None:
    with pytest.raises(DescriptorError, match=r"there is no service test\.library\.v1\.Libary; did you mean test\.library\.v1\.Library\?"):
        Directory(files(), ["test.library.v1.Libary"])


def test_two_directories_may_each_have_a_type_of_the_same_name(tmp_path: Path) -> None:
    made = []
    for kind in ("string", "int64"):
        (tmp_path / "same.proto").write_text(
            f'syntax = "proto3"; package same; message M {{ {kind} value = 1; }} service S {{ rpc Get(M) returns (M); }}'
        )
        made.append(Directory(read_descriptor_set(compile_protos("same.proto", folder=tmp_path))))
    texts, numbers = (each.methods["same.S/Get"] for each in made)
    assert texts.request.from_json({"value": "5"}) == b"\n\x015"
    assert numbers.request.from_json({"value": "5"}) == b"\x08\x05"
    assert made[0].fingerprint != made[1].fingerprint


def test_the_fingerprint_tells_whether_something_has_changed() -> None:
    assert Directory(files()).fingerprint == Directory(reversed(files())).fingerprint
    changed = files()
    changed[-1].service[0].method[0].options.deprecated = True
    assert Directory(changed).fingerprint != Directory(files()).fingerprint
    everything = Directory(files(), [LIBRARY])
    assert everything.fingerprint == directory.fingerprint(files(), [LIBRARY]) != directory.fingerprint(files(), [])


def test_editions_and_files_in_no_package_are_read(tmp_path: Path) -> None:
    (tmp_path / "new.proto").write_text(
        'edition = "2023"; message M { int32 value = 1; string text = 2 [features.field_presence = IMPLICIT]; }'
        " service S { rpc Get(M) returns (M); }"
    )
    method = Directory(read_descriptor_set(compile_protos("new.proto", folder=tmp_path))).methods["S/Get"]
    assert method.path == "/S/Get"
    assert method.response.to_json(b"\x08\x00\x12\x00") == b'{"value":0}'


def test_a_set_with_locations_that_lead_nowhere_has_no_comments_there() -> None:
    found = FileDescriptorSet.FromString(descriptor_set())
    for path in ([6], [6, 99], [6, 0, 2, 99], [6, 0, 99, 0], [99, 0], [4, -1], [6, 0, 2, 0, 1, 0]):
        found.file[-1].source_code_info.location.add(path=path, leading_comments="nowhere")
    assert "nowhere" not in str(Directory(found.file).services[LIBRARY].methods["GetBook"].description)
