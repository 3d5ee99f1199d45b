"""Records as JSON, as the releases before this one can read them."""

from __future__ import annotations

from enum import Enum
from typing import Any

from rekindle.vocabulary import Modality
from rekindle_servicekit import json_codec
from rekindle_servicekit.json_codec import decode, decode_all

__all__ = ["decode", "decode_all", "encode"]


def encode(value: Any) -> Any:
    """As `json_codec.encode`, but with modalities as "ct" and "mr".

    The releases up to 0.2 read no other spelling, and share the tables while an upgrade or its roll-back goes on.
    This release reads both.
    """
    return json_codec.encode(value, word=_word)


def _word(word: Enum) -> Any:
    return word.value.lower() if isinstance(word, Modality) else word.value
