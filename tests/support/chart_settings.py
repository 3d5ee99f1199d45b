"""Which settings the chart gives values of its own, and which are left to `<component>.settings`.

``python tests/support/chart_settings.py`` writes the latter into the chart's schema.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rekindle_inference.settings import Settings as InferenceSettings
from rekindle_scheduler.settings import Settings as SchedulerSettings
from rekindle_servicekit.settings import environment_variables
from rekindle_trainer.settings import TrainerSettings

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "rekindle"
SETTINGS = {"scheduler": SchedulerSettings, "inference": InferenceSettings, "trainer": TrainerSettings}
_SCALARS = ("string", "integer", "number", "boolean")
#: Nothing that a pod could make use of.
_POINTLESS = {"port_file"}


def free_settings(component: str) -> dict[str, dict[str, Any]]:
    """Name -> schema of each setting that the templates do not set in any of their branches."""
    settings = SETTINGS[component]
    taken = _taken(component)
    return {
        name: {"type": [*_SCALARS], "description": settings.model_fields[name].description}
        for variable, name in environment_variables(settings).items()
        if variable not in taken and name not in _POINTLESS
    }


def _taken(component: str) -> set[str]:
    text = "".join(path.read_text() for path in sorted((CHART / "templates").glob("_*.tpl")))
    prefix = f"REKINDLE_{component.upper()}_"
    store = re.search(r'define "rekindle.objectsEnv".*?(?={{- define)', text, re.S)
    assert store is not None
    common = text.replace(store[0], "")
    names = re.findall(r'"%s_([A-Z0-9_]+)" \$prefix', common)
    if component != "scheduler":
        names += [f"OBJECTS_{name}" for name in re.findall(r'"%s_([A-Z0-9_]+)" \$prefix', store[0])]
    return {prefix + name for name in names} | set(re.findall(rf'"({prefix}[A-Z0-9_]+)"', text))


def main() -> None:
    """Bring the schema up to date."""
    file = CHART / "values.schema.json"
    schema = json.loads(file.read_text())
    for component in SETTINGS:
        known = schema["properties"][component]["properties"]
        known["settings"] = {
            "type": "object",
            "additionalProperties": False,
            "properties": free_settings(component),
        }
    file.write_text(json.dumps(schema, indent=2) + "\n")


if __name__ == "__main__":
    main()
