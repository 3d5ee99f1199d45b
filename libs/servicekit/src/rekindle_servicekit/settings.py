"""Settings: frozen, from the environment, and strict about misspelt names."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError
from rekindle.errors import FieldViolation, InvalidInput

#: Pattern of an installation id: it begins object keys and names of models, so no capitals, dots or slashes.
INSTALLATION_ID = r"^([a-z0-9][a-z0-9-]{0,31})?$"


class ServiceSettings(BaseSettings):
    """Base of a service's settings; a subclass sets ``model_config = SettingsConfigDict(env_prefix="...")``.

    Every variable with the prefix must be known. Values are built once, in `__main__`, and passed inward. Any
    value may lie in a file that the variable with ``_FILE`` at its end names, so that no password need be in the
    environment. An empty value counts as no value where there may be none.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_nested_delimiter="__")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_variables(cls, data: Any) -> Any:
        unknown = unknown_variables(cls, os.environ)
        if unknown:
            raise InvalidInput("; ".join(unknown.values()), reason="UNKNOWN_SETTING", violations=_violations(unknown))
        if not isinstance(data, dict):
            return data
        values = _values_from_files(cls, os.environ) | data
        return {name: None if _is_nothing(cls, name, value) else value for name, value in values.items()}

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """The settings of this process; InvalidInput names each variable that is wrong, without its value."""
        try:
            return cls(**overrides)
        except SettingsError as error:
            # It names the field in its words alone.
            wrong = {
                _variable_at(cls, (name,)): "write it as JSON" for name in re.findall(r'field "(\w+)"', str(error))
            }
            raise _wrong(wrong) from None
        except ValidationError as error:
            wrong = {_variable_at(cls, item["loc"]): item["msg"] for item in error.errors(include_input=False)}
            raise _wrong(wrong) from None


def environment_variables(settings: type[BaseSettings]) -> dict[str, str]:
    """Environment variable -> name of the field that it sets."""
    prefix = str(settings.model_config.get("env_prefix", ""))
    return {(prefix + name).upper(): name for name in settings.model_fields}


def file_variables(settings: type[BaseSettings]) -> dict[str, str]:
    """Variable that names a file -> name of the field whose value lies in it."""
    known = environment_variables(settings)
    return {f"{variable}_FILE": name for variable, name in known.items() if f"{variable}_FILE" not in known}


def _is_nothing(settings: type[BaseSettings], name: str, value: object) -> bool:
    """Whether a value is empty, or the word none, where there may be none; an empty path would be this folder.

    Text may be empty, and a file may be called none.
    """
    field = settings.model_fields.get(name)
    kinds = () if field is None else get_args(field.annotation)
    if type(None) not in kinds or str in kinds or not isinstance(value, str):
        return False
    return value == "" or (value.lower() == "none" and Path not in kinds)


def _values_from_files(settings: type[BaseSettings], environment: Mapping[str, str]) -> dict[str, str]:
    by_upper_name = {variable.upper(): value for variable, value in environment.items()}
    values: dict[str, str] = {}
    for variable, name in file_variables(settings).items():
        path = by_upper_name.get(variable)
        if not path:
            continue
        plain = variable.removesuffix("_FILE")
        if plain in by_upper_name:
            raise InvalidInput(f"{plain} and {variable} are both set: keep one", reason="INVALID_SETTING")
        try:
            values[name] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise InvalidInput(f"{variable}: {path} cannot be read: {why}", reason="INVALID_SETTING") from None
    return values


def unknown_variables(settings: type[BaseSettings], environment: Iterable[str]) -> dict[str, str]:
    """Variables in `environment` with the prefix that set nothing -> what is wrong, and the nearest name.

    pydantic-settings reads the names that it knows and never sees the others, so it cannot tell.
    """
    prefix = str(settings.model_config.get("env_prefix", "")).upper()
    delimiter = settings.model_config.get("env_nested_delimiter")
    known = environment_variables(settings) | file_variables(settings)
    if not prefix:
        return {}
    unknown: dict[str, str] = {}
    for variable in sorted(environment):
        stem = variable.upper().split(delimiter)[0] if delimiter else variable.upper()
        if variable.upper().startswith(prefix) and not {stem, variable.upper()} & known.keys():
            unknown[variable] = _correction(variable, list(environment_variables(settings)))
    return unknown


def settings_table(settings: type[BaseSettings]) -> str:
    """Variable, default and meaning of each setting in aligned columns, for ``--help`` and the docs."""
    rows = [
        (variable, _default_text(settings.model_fields[name]), _meaning(settings.model_fields[name]))
        for variable, name in environment_variables(settings).items()
    ]
    header = ("variable", "default", "meaning")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(2)]
    return "\n".join(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}".rstrip() for row in [header, *rows])


def _correction(variable: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(variable.upper(), known, n=1, cutoff=0.6)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
    return f"unknown setting {variable}: {hint}"


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, SecretStr):
        default = "" if default.get_secret_value() == "" else "(secret)"
    if isinstance(default, bool | dict | list):
        return json.dumps(default)
    return "(empty)" if default in (None, "") else str(default)


def _meaning(field: FieldInfo) -> str:
    """With the words that may be chosen, where there are only some."""
    words = field.description or ""
    return f"{words} ({', '.join(get_args(field.annotation))})" if get_origin(field.annotation) is Literal else words


def _variable_at(settings: type[BaseSettings], location: tuple[int | str, ...]) -> str:
    prefix = str(settings.model_config.get("env_prefix", ""))
    return (prefix + "__".join(str(part) for part in location)).upper()


def _wrong(wrong: dict[str, str]) -> InvalidInput:
    words = "; ".join(f"{variable}: {message}" for variable, message in wrong.items())
    return InvalidInput(f"wrong settings: {words}", reason="INVALID_SETTING", violations=_violations(wrong))


def _violations(wrong: dict[str, str]) -> list[FieldViolation]:
    return [FieldViolation(variable, message) for variable, message in wrong.items()]
