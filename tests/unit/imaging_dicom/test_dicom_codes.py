"""Codes of organs are those of the standard's own dictionary."""

from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes
from rekindle_imaging.dicom.codes import ORGANS, SIDES, code_of

NAMES = {"urinary_bladder": "Bladder"}


@pytest.mark.parametrize("name", sorted(ORGANS) + sorted(SIDES))
def test_a_code_is_that_of_the_standard(name: str) -> None:
    """pydicom's dictionary is generated from PS3.16."""
    concept = getattr(codes.SCT, NAMES.get(name, name.title().replace("_", "")))
    ours = {**ORGANS, **SIDES}[name]
    assert (concept.scheme_designator, concept.value) == (ours.scheme, ours.value)


def test_sides_may_stand_before_or_after() -> None:
    """And other common names mean the same; unknown names have no code."""
    for name in ("left_kidney", "kidney_left"):
        found = code_of(name)
        assert found is not None
        assert ("64033007", "left") == (found.value, found.side)
    assert code_of("ivc") == code_of("inferior_vena_cava")
    assert code_of("thing") is None
