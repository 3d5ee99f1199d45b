"""One synthetic subject: sampled proportions, and the tissue of every voxel."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from rekindle_local.synthetic.shapes import (
    Ellipsoid,
    Field,
    Inside,
    Point,
    Space,
    column,
    deform,
    oval,
    tube,
    waves,
)

Tissues = npt.NDArray[np.uint8]


class Tissue(IntEnum):
    """What a voxel is made of; the order has no meaning."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    MARROW = 3
    CORTEX = 4
    LUNG = 5
    BOWEL = 6
    GAS = 7
    FLUID = 8
    STOMACH = 9
    KIDNEY = 10
    KIDNEY_MEDULLA = 11
    ARTERY = 12
    VEIN = 13
    HEART = 14
    LIVER = 15
    LIVER_VESSEL = 16
    LIVER_LESION = 17
    SPLEEN = 18
    GALLBLADDER = 19
    PANCREAS = 20


LIVER_TISSUES = (Tissue.LIVER, Tissue.LIVER_VESSEL, Tissue.LIVER_LESION)
LIVER_LABEL, SPLEEN_LABEL = 1, 2


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Proportions of one person."""

    #: linear size against an average adult
    size: float
    #: thickness of the fat under the skin
    fat_mm: float
    #: linear size of liver and spleen against the body's
    liver: float
    spleen: float
    #: how far the anatomy departs from the template: amplitude of the smooth deformation
    deformation_mm: float
    #: centres and radii of liver lesions
    lesions: tuple[tuple[Point, float], ...]
    #: seed of deformation, bowel and other details
    detail_seed: int


def sample_subject(rng: np.random.Generator, *, difficulty: float) -> Subject:
    """Draw a subject; `difficulty` in [0, 1] makes organs more unusual and adds lesions."""
    lesions = tuple(
        (
            (rng.uniform(-110.0, -20.0), rng.uniform(-45.0, 45.0), rng.uniform(-35.0, 60.0)),
            rng.uniform(8.0, 14.0 + 12.0 * difficulty),
        )
        for _ in range(int(rng.integers(0, 2 + round(4 * difficulty))))
    )
    spread = 0.04 + 0.05 * difficulty
    return Subject(
        size=float(np.clip(rng.normal(1.0, 0.05), 0.9, 1.1)),
        fat_mm=float(rng.uniform(8.0, 30.0)),
        liver=float(np.clip(rng.normal(1.0, spread), 0.88, 1.12)),
        spleen=float(np.clip(rng.normal(1.0 - 0.08 * difficulty, 1.6 * spread), 0.75, 1.3)),
        deformation_mm=float(3.0 + 5.0 * difficulty + rng.uniform(0.0, 1.5)),
        lesions=lesions,
        detail_seed=int(rng.integers(0, 2**31)),
    )


def draw(subject: Subject, space: Space) -> Tissues:
    """Tissue of every voxel, uint8 (k, j, i), of a subject seen in `space` (undeformed, millimetres)."""
    rng = np.random.default_rng(subject.detail_seed)
    scale = np.float32(1.0 / subject.size)
    bent = deform(
        Space(x=space.x * scale, y=space.y * scale, z=space.z * scale),
        rng,
        amplitude_mm=subject.deformation_mm,
    )
    tissues = np.zeros(bent.x.shape, dtype=np.uint8)
    trunk = _Trunk(bent, subject)
    _draw_wall(tissues, trunk)
    _draw_chest(tissues, trunk)
    _draw_lower_abdomen(tissues, trunk, rng)
    _draw_upper_abdomen(tissues, trunk, subject, rng)
    _draw_spine(tissues, trunk)
    return tissues


def organ_labels(tissues: Tissues) -> npt.NDArray[np.uint8]:
    """Label image of a tissue image: 0 background, 1 liver (with its vessels and lesions), 2 spleen."""
    labels = np.zeros_like(tissues)
    labels[np.isin(tissues, LIVER_TISSUES)] = LIVER_LABEL
    labels[tissues == Tissue.SPLEEN] = SPLEEN_LABEL
    return labels


class _Trunk:
    """Regions that many organs refer to: skin, wall, cavity and the height of the diaphragm."""

    def __init__(self, space: Space, subject: Subject) -> None:
        self.space = space
        fat = subject.fat_mm
        self.skin = oval(space, half_width_mm=142.0 + fat, half_depth_mm=99.0 + fat)
        self.wall = oval(space, half_width_mm=142.0, half_depth_mm=99.0)
        self.cavity = oval(space, half_width_mm=127.0, half_depth_mm=86.0)
        self.dome_mm: Field = np.maximum(
            88.0 - 42.0 * (((space.x + 62.0) / 72.0) ** 2 + (space.y / 88.0) ** 2),
            74.0 - 42.0 * (((space.x - 68.0) / 68.0) ** 2 + ((space.y - 5.0) / 88.0) ** 2),
        )
        self.abdominal: Inside = (self.cavity < 1.0) & (space.z < self.dome_mm)


def _draw_wall(tissues: Tissues, trunk: _Trunk) -> None:
    space = trunk.space
    tissues[trunk.skin < 1.0] = Tissue.FAT
    tissues[trunk.wall < 1.0] = Tissue.MUSCLE
    # Ribs run forward and down, so that an axial slice cuts each of them obliquely.
    middle = np.abs(trunk.wall - 0.945) < 0.028
    rib = np.cos(2.0 * np.pi * (space.z + 0.45 * space.y) / 27.0) > 0.35
    caged = space.z > -45.0 + 0.35 * np.abs(space.y)
    tissues[middle & rib & caged & (np.abs(space.x) > 28.0)] = Tissue.CORTEX
    tissues[trunk.cavity < 1.0] = Tissue.FAT
    for side in (-1.0, 1.0):
        loin = column(space, x_mm=34.0 * side, y_mm=88.0, semi_mm=(29.0, 21.0)) < 1.0
        psoas = column(space, x_mm=40.0 * side, y_mm=58.0, semi_mm=(17.0, 19.0)) < np.clip(
            (10.0 - space.z) / 80.0, 0.0, 1.0
        )
        tissues[(loin | psoas) & (trunk.wall < 1.0)] = Tissue.MUSCLE


def _draw_chest(tissues: Tissues, trunk: _Trunk) -> None:
    space = trunk.space
    chest = (trunk.cavity < 1.0) & (space.z >= trunk.dome_mm)
    tissues[chest] = Tissue.MUSCLE
    tissues[chest & (space.z > trunk.dome_mm + 3.5)] = Tissue.LUNG
    mediastinum = column(space, x_mm=2.0, y_mm=30.0, semi_mm=(34.0, 52.0)) < 1.0
    tissues[chest & mediastinum] = Tissue.FAT
    heart = Ellipsoid(centre_mm=(22.0, -28.0, 112.0), semi_mm=(56.0, 46.0, 42.0))
    tissues[chest & heart.inside(space)] = Tissue.HEART


def _draw_lower_abdomen(tissues: Tissues, trunk: _Trunk, rng: np.random.Generator) -> None:
    space = trunk.space
    loops = waves(space, rng, count=7, wavelength_mm=(38.0, 75.0), amplitude=1.0)
    low = trunk.abdominal & (trunk.cavity < 0.95) & (space.y < 38.0)
    low &= space.z < 12.0 + 0.2 * space.x - 0.35 * space.y
    tissues[low & (loops > 0.05)] = Tissue.BOWEL
    tissues[low & (loops > 1.15) & (space.y < 10.0)] = Tissue.GAS
    for side in (-1.0, 1.0):
        colon = tube(space, [(104.0 * side, 18.0, -170.0), (102.0 * side, 8.0, -70.0)], 19.0)
        tissues[colon & trunk.abdominal] = Tissue.BOWEL
        filling = tube(space, [(104.0 * side, 14.0, -170.0), (102.0 * side, 4.0, -70.0)], 12.0)
        tissues[filling & trunk.abdominal & (loops > -0.2)] = Tissue.GAS
        wing = Ellipsoid(centre_mm=(98.0 * side, 55.0, -185.0), semi_mm=(24.0, 52.0, 58.0))
        level = wing.level(space)
        tissues[(level < 1.0) & (trunk.wall < 1.0)] = Tissue.MARROW
        tissues[(level < 1.0) & (level > 0.72) & (trunk.wall < 1.0)] = Tissue.CORTEX
    bladder = Ellipsoid(centre_mm=(0.0, -25.0, -215.0), semi_mm=(45.0, 35.0, 34.0))
    tissues[bladder.inside(space) & trunk.abdominal] = Tissue.FLUID


def _draw_upper_abdomen(tissues: Tissues, trunk: _Trunk, subject: Subject, rng: np.random.Generator) -> None:
    space, room = trunk.space, trunk.abdominal & (trunk.cavity < 0.985)
    pancreas = tube(space, [(-28.0, -2.0, -22.0), (15.0, -12.0, -6.0), (72.0, 22.0, 8.0)], 11.0)
    tissues[pancreas & room] = Tissue.PANCREAS
    _draw_stomach(tissues, trunk, room, rng)
    spleen = _spleen(space, subject) & room
    tissues[spleen] = Tissue.SPLEEN
    liver = _liver(space, subject) & room
    tissues[liver] = Tissue.LIVER
    for centre, radius in subject.lesions:
        lesion = Ellipsoid(centre_mm=centre, semi_mm=(radius, radius, radius))
        tissues[liver & lesion.inside(space)] = Tissue.LIVER_LESION
    tissues[liver & _liver_vessels(space)] = Tissue.LIVER_VESSEL
    gallbladder = Ellipsoid(centre_mm=(-52.0, -42.0, -30.0), semi_mm=(15.0, 20.0, 26.0))
    tissues[gallbladder.inside(space) & room] = Tissue.GALLBLADDER
    _draw_kidneys(tissues, trunk)
    portal = tube(space, [(4.0, 8.0, -40.0), (-12.0, 8.0, -5.0), (-34.0, 2.0, 16.0)], 6.5)
    tissues[portal & room & ~liver] = Tissue.VEIN
    cava = column(space, x_mm=-22.0, y_mm=36.0, semi_mm=(13.0, 10.0)) < 1.0
    tissues[cava & (trunk.cavity < 1.0)] = Tissue.VEIN
    tissues[(column(space, x_mm=13.0, y_mm=38.0, semi_mm=(10.5, 10.5)) < 1.0) & (trunk.cavity < 1.0)] = Tissue.ARTERY


def _draw_stomach(tissues: Tissues, trunk: _Trunk, room: Inside, rng: np.random.Generator) -> None:
    space = trunk.space
    body = tube(space, [(58.0, 4.0, 48.0), (72.0, -26.0, 12.0), (48.0, -46.0, -22.0), (4.0, -40.0, -22.0)], 30.0)
    lumen = tube(space, [(58.0, 4.0, 48.0), (72.0, -26.0, 12.0), (48.0, -46.0, -22.0), (4.0, -40.0, -22.0)], 23.0)
    tissues[body & room] = Tissue.STOMACH
    tissues[lumen & room] = Tissue.FLUID
    # Gas rises to the front of a patient who lies on the back.
    tissues[lumen & room & (space.y < rng.uniform(-60.0, -38.0))] = Tissue.GAS


def _spleen(space: Space, subject: Subject) -> Inside:
    size = subject.spleen
    whole = Ellipsoid(centre_mm=(88.0, 38.0, 22.0), semi_mm=(42.0 * size, 56.0 * size, 55.0 * size))
    # The stomach's side is hollow, which leaves the crescent.
    hollow = Ellipsoid(centre_mm=(48.0, 4.0, 20.0), semi_mm=(44.0, 48.0, 62.0))
    return whole.inside(space) & ~hollow.inside(space)


def _liver(space: Space, subject: Subject) -> Inside:
    size = subject.liver
    right = Ellipsoid(centre_mm=(-64.0, 2.0, 14.0), semi_mm=(74.0 * size, 84.0 * size, 84.0 * size))
    left = Ellipsoid(centre_mm=(14.0, -48.0, 44.0), semi_mm=(68.0 * size, 34.0 * size, 34.0 * size))
    caudate = Ellipsoid(centre_mm=(-14.0, 14.0, 38.0), semi_mm=(22.0, 18.0, 24.0))
    # The visceral surface climbs from the right flank to the midline and from front to back.
    visceral = space.z > -78.0 * size + 0.75 * (space.x + 112.0) + 0.15 * (space.y + 20.0)
    medial = space.x < 8.0 + 0.5 * (space.z - 20.0) - 0.25 * space.y
    return (right.inside(space) & visceral & medial) | left.inside(space) | caudate.inside(space)


def _liver_vessels(space: Space) -> Inside:
    branches: tuple[list[Point], ...] = (
        [(-12.0, 8.0, -5.0), (-34.0, 2.0, 16.0), (-75.0, 8.0, 22.0), (-105.0, 20.0, 5.0)],
        [(-34.0, 2.0, 16.0), (-18.0, -35.0, 34.0), (20.0, -50.0, 44.0)],
        [(-24.0, 32.0, 66.0), (-62.0, 20.0, 48.0), (-108.0, 2.0, 20.0)],
        [(-24.0, 30.0, 66.0), (-50.0, -25.0, 50.0), (-72.0, -58.0, 22.0)],
        [(-22.0, 28.0, 66.0), (0.0, -25.0, 60.0), (32.0, -50.0, 50.0)],
    )
    inside = tube(space, branches[0], 5.0)
    for branch in branches[1:]:
        inside |= tube(space, branch, 4.2)
    return inside


def _draw_kidneys(tissues: Tissues, trunk: _Trunk) -> None:
    for x, z in ((-60.0, -48.0), (62.0, -36.0)):
        kidney = Ellipsoid(centre_mm=(x, 55.0, z), semi_mm=(27.0, 25.0, 52.0))
        level = kidney.level(trunk.space)
        capsule = (level < 1.55) & (trunk.cavity < 1.0) & (trunk.space.z < trunk.dome_mm)
        tissues[capsule & ~np.isin(tissues, (Tissue.MUSCLE, Tissue.SPLEEN))] = Tissue.FAT
        tissues[(level < 1.0) & capsule] = Tissue.KIDNEY
        tissues[(level < 0.5) & capsule] = Tissue.KIDNEY_MEDULLA
        hilum = np.sign(-x) * (trunk.space.x - x)
        tissues[(level < 0.3) & capsule & (hilum > -4.0)] = Tissue.FAT


def _draw_spine(tissues: Tissues, trunk: _Trunk) -> None:
    space = trunk.space
    inside = trunk.skin < 0.97
    body = column(space, x_mm=0.0, y_mm=66.0, semi_mm=(22.0, 18.0))
    disc = np.cos(2.0 * np.pi * space.z / 34.0) > 0.82
    tissues[(body < 1.0) & inside] = Tissue.MARROW
    tissues[(body < 1.0) & (body > 0.78) & inside] = Tissue.CORTEX
    tissues[(body < 1.0) & disc & inside] = Tissue.MUSCLE
    arch = (column(space, x_mm=0.0, y_mm=91.0, semi_mm=(15.0, 12.0)) < 1.0) & ~disc
    process = (np.abs(space.x) < 4.0) & (space.y > 95.0) & (space.y < 116.0) & ~disc
    tissues[(arch | process) & inside] = Tissue.CORTEX
    tissues[column(space, x_mm=0.0, y_mm=91.0, semi_mm=(8.0, 7.0)) < 1.0] = Tissue.FLUID
