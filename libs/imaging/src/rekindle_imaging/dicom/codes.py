"""Codes of organs: SNOMED CT concepts of PS3.16 (CID 7192 and 4031) for the names that projects commonly give."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A concept of a coding scheme."""

    scheme: str
    value: str
    meaning: str
    #: Side, "left" or "right", where the concept needs one.
    side: str = ""


_SCT: Final = "SCT"

ORGANS: Final = {
    "liver": Code(scheme=_SCT, value="10200004", meaning="Liver"),
    "spleen": Code(scheme=_SCT, value="78961009", meaning="Spleen"),
    "kidney": Code(scheme=_SCT, value="64033007", meaning="Kidney"),
    "pancreas": Code(scheme=_SCT, value="15776009", meaning="Pancreas"),
    "stomach": Code(scheme=_SCT, value="69695003", meaning="Stomach"),
    "gallbladder": Code(scheme=_SCT, value="28231008", meaning="Gallbladder"),
    "esophagus": Code(scheme=_SCT, value="32849002", meaning="Esophagus"),
    "duodenum": Code(scheme=_SCT, value="38848004", meaning="Duodenum"),
    "small_intestine": Code(scheme=_SCT, value="30315005", meaning="Small Intestine"),
    "colon": Code(scheme=_SCT, value="71854001", meaning="Colon"),
    "urinary_bladder": Code(scheme=_SCT, value="89837001", meaning="Urinary bladder"),
    "prostate": Code(scheme=_SCT, value="41216001", meaning="Prostate"),
    "uterus": Code(scheme=_SCT, value="35039007", meaning="Uterus"),
    "aorta": Code(scheme=_SCT, value="15825003", meaning="Aorta"),
    "inferior_vena_cava": Code(scheme=_SCT, value="64131007", meaning="Inferior vena cava"),
    "portal_vein": Code(scheme=_SCT, value="32764006", meaning="Portal vein"),
    "adrenal_gland": Code(scheme=_SCT, value="23451007", meaning="Adrenal gland"),
    "heart": Code(scheme=_SCT, value="80891009", meaning="Heart"),
    "lung": Code(scheme=_SCT, value="39607008", meaning="Lung"),
}
SIDES: Final = {
    "left": Code(scheme=_SCT, value="7771000", meaning="Left"),
    "right": Code(scheme=_SCT, value="24028007", meaning="Right"),
}
_OTHER_NAMES: Final = {
    "oesophagus": "esophagus",
    "bladder": "urinary_bladder",
    "ivc": "inferior_vena_cava",
    "gall_bladder": "gallbladder",
    "small_bowel": "small_intestine",
    "adrenal": "adrenal_gland",
}


def code_of(organ_id: str) -> Code | None:
    """The code for a project's organ id, with left or right before or after the name; None if it is unknown."""
    name, side = organ_id.lower(), ""
    for word in SIDES:
        if name.startswith(f"{word}_"):
            name, side = name.removeprefix(f"{word}_"), word
        elif name.endswith(f"_{word}"):
            name, side = name.removesuffix(f"_{word}"), word
    found = ORGANS.get(_OTHER_NAMES.get(name, name))
    return None if found is None else Code(scheme=found.scheme, value=found.value, meaning=found.meaning, side=side)
