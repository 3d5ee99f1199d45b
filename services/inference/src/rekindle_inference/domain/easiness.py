"""Easiness: minutes of correction that a coarse label is expected to need, before anything was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rekindle.vocabulary import OrganQuality


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """Constants of the formula that serves until a project has minutes of its own.

    minutes = (reading_s_per_slice * slices of the volume + sum over organs of
    (drawing_s_per_mm * contour expected to be wrong + cleaning_s_per_component * components beyond the
    first)) / 60

    contour expected to be wrong = predicted boundary * error_share
    * (1 - exp(-error_rate * (1 - soft Dice confidence))).
    Boundary length and components follow Kuo 2018 (log minutes on both), the contour drawn anew as the measure
    of work Vaassen 2020, the confidence arXiv 2402.10665. The level is set by Ma et al. 2022: 13.87 minutes for
    a first coarse label of mean Dice 0.78, where about half of the contour lies more than 3 mm off, and about 25
    minutes from nothing. The curve was set once, on public seed volumes that the model had not been trained on: a
    very doubtful label still offers a third of its contour, and much of its rest is erased rather than drawn.
    """

    #: Seconds to look at one slice of the volume.
    reading_s_per_slice: float = 0.5
    #: Seconds to draw one millimetre of contour.
    drawing_s_per_mm: float = 0.06
    #: The most of a predicted contour that is expected to be drawn anew, whatever the doubt.
    error_share: float = 0.65
    #: How fast doubt gets there; 0.22 of confidence missing means that 54 % of the contour must be drawn anew.
    error_rate: float = 8.0
    #: Seconds to judge and clear one component beyond the organ's own.
    cleaning_s_per_component: float = 10.0
    #: Millimetres of contour per slice of the volume that an organ is expected to have where none was found.
    missing_contour_mm_per_slice: float = 120.0


COLD_START = ColdStart()


def wrong_contour_mm(quality: OrganQuality, volume_slices: int, constants: ColdStart = COLD_START) -> float:
    """Millimetres of contour that will have to be drawn anew for one organ.

    An organ that was not found at all is expected to be there: all of an average contour must be drawn.
    """
    if quality.soft_dice_confidence is None or quality.slices == 0:
        return constants.missing_contour_mm_per_slice * volume_slices
    doubt = 1.0 - min(1.0, max(0.0, quality.soft_dice_confidence))
    wrong_share = constants.error_share * (1.0 - math.exp(-constants.error_rate * doubt))
    return quality.boundary_length_mm * wrong_share


def predicted_minutes(
    qualities: Sequence[OrganQuality], volume_slices: int, constants: ColdStart = COLD_START
) -> float:
    """Minutes of correction expected for a volume of `volume_slices` slices; see `ColdStart`."""
    seconds = constants.reading_s_per_slice * volume_slices
    for quality in qualities:
        seconds += constants.drawing_s_per_mm * wrong_contour_mm(quality, volume_slices, constants)
        seconds += constants.cleaning_s_per_component * max(0, quality.components - 1)
    return seconds / 60.0
