"""docs/words.md names only what the API and the code have."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest
from google.protobuf.descriptor import Descriptor
from rekindle.api.common.v1 import common_pb2
from rekindle.api.inference.v1 import inference_pb2, segmentations_pb2, volumes_pb2
from rekindle.api.scheduler.v1 import annotation_pb2, purges_pb2, records_pb2, scheduler_pb2
from rekindle.api.trainer.v1 import trainer_pb2

PAGE = Path(__file__).parents[3] / "docs" / "words.md"
FILES = (
    common_pb2,
    records_pb2,
    annotation_pb2,
    purges_pb2,
    scheduler_pb2,
    inference_pb2,
    volumes_pb2,
    segmentations_pb2,
    trainer_pb2,
)
#: A row of a table: its word, its meaning, and the names where to find it.
ROWS = [
    line.strip("| ").split(" | ")
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| word")
]


def names_of_message(message: Descriptor) -> set[str]:
    """The message itself, its fields and the values of its enumerations."""
    values = {value for enum in message.enum_types for value in enum.values_by_name}
    return {message.name} | {f"{message.name}.{name}" for name in values | set(message.fields_by_name)}


@pytest.fixture(scope="module")
def api_names() -> set[str]:
    """Every message, field, enumeration, value and call of the API."""
    names: set[str] = set()
    for file in (module.DESCRIPTOR for module in FILES):
        for message in file.message_types_by_name.values():
            names |= names_of_message(message)
        for enum in file.enum_types_by_name.values():
            names |= {enum.name, *enum.values_by_name}
        for service in file.services_by_name.values():
            names |= set(service.methods_by_name)
    return names


@pytest.mark.parametrize(("word", "where"), [(word, where) for word, _, where in ROWS], ids=[row[0] for row in ROWS])
def test_a_word_is_found_where_the_page_says(api_names: set[str], word: str, where: str) -> None:
    """The last column names messages, fields and calls of the API, or modules and attributes of the code."""
    names = re.findall(r"`([^`]+)`", where)
    assert names, word
    for name in names:
        if name.startswith("rekindle"):
            resolve_name(name)
        else:
            assert name in api_names


def test_a_name_that_does_not_exist_is_noticed() -> None:
    """The check itself: a module that is there, with an attribute that is not."""
    import_module("rekindle.leases")
    with pytest.raises(AttributeError):
        resolve_name("rekindle.leases.Lease.polish")
