"""The pages that are made of the code say what the code says."""

from __future__ import annotations

import json
import re

import pytest

from gateway.errors import PROBLEMS
from gateway.settings import reading
from scripts import generate_docs
from tests.e2e.harness import Served

PAGES = generate_docs.pages()


@pytest.mark.parametrize("name", PAGES)
def test_page_is_current(name: str) -> None:
    assert (generate_docs.FOLDER / name).read_text() == PAGES[name], "run `make docs`"


def test_every_setting_is_there() -> None:
    for section, model in reading.tables().items():
        block = PAGES["settings.md"].partition(f"[{section}]")[2]
        for name in model.model_fields:
            assert f"\n{name} = " in block or f"\n# {name} =" in block, f"{section}.{name}"


def test_every_problem_is_there() -> None:
    assert all(f"\n| `{name}` |" in PAGES["problems.md"] for name in PROBLEMS)


def test_the_example_of_a_problem_is_what_the_gateway_says(gateway: Served) -> None:
    example = json.loads(re.findall(r"```json\n(.+?)```", PAGES["problems.md"], re.DOTALL)[0])
    said = gateway.client.post(example["instance"], json={"epochs": "many"}).json()
    assert said | {"request_id": ""} == example | {"request_id": ""}
