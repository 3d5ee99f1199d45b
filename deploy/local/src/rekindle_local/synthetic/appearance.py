"""How a scanner shows the synthetic tissues: CT in Hounsfield units, T2-like MR."""

from enum import StrEnum
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from rekindle_local.synthetic.anatomy import LIVER_TISSUES, Tissue, Tissues
from rekindle_local.synthetic.shapes import Space, waves

Image = npt.NDArray[np.int16]
Signal = npt.NDArray[np.float32]

CT_RANGE_HU = (-125.0, 275.0)
MR_NOISE_FREE_AIR = 4.0


class Phase(StrEnum):
    """When a CT was taken after contrast agent, if any was given."""

    PLAIN = "plain"
    ARTERIAL = "arterial"
    PORTAL_VENOUS = "portal_venous"


_PLAIN_HU = {
    Tissue.AIR: -1000.0,
    Tissue.FAT: -100.0,
    Tissue.MUSCLE: 55.0,
    Tissue.MARROW: 160.0,
    Tissue.CORTEX: 420.0,
    Tissue.LUNG: -830.0,
    Tissue.BOWEL: 32.0,
    Tissue.GAS: -950.0,
    Tissue.FLUID: 12.0,
    Tissue.STOMACH: 38.0,
    Tissue.KIDNEY: 34.0,
    Tissue.KIDNEY_MEDULLA: 32.0,
    Tissue.ARTERY: 42.0,
    Tissue.VEIN: 42.0,
    Tissue.HEART: 42.0,
    Tissue.LIVER: 60.0,
    Tissue.LIVER_VESSEL: 42.0,
    Tissue.LIVER_LESION: 34.0,
    Tissue.SPLEEN: 49.0,
    Tissue.GALLBLADDER: 12.0,
    Tissue.PANCREAS: 40.0,
}
#: what contrast agent adds to the plain values, in HU
_ENHANCEMENT_HU = {
    Phase.PLAIN: {},
    Phase.ARTERIAL: {
        Tissue.MUSCLE: 5.0,
        Tissue.BOWEL: 25.0,
        Tissue.STOMACH: 30.0,
        Tissue.KIDNEY: 120.0,
        Tissue.KIDNEY_MEDULLA: 35.0,
        Tissue.ARTERY: 230.0,
        Tissue.VEIN: 40.0,
        Tissue.HEART: 170.0,
        Tissue.LIVER: 16.0,
        Tissue.LIVER_VESSEL: 30.0,
        Tissue.LIVER_LESION: 8.0,
        Tissue.SPLEEN: 62.0,
        Tissue.PANCREAS: 60.0,
    },
    Phase.PORTAL_VENOUS: {
        Tissue.MUSCLE: 12.0,
        Tissue.BOWEL: 55.0,
        Tissue.STOMACH: 50.0,
        Tissue.KIDNEY: 150.0,
        Tissue.KIDNEY_MEDULLA: 120.0,
        Tissue.ARTERY: 105.0,
        Tissue.VEIN: 125.0,
        Tissue.HEART: 105.0,
        Tissue.LIVER: 52.0,
        Tissue.LIVER_VESSEL: 118.0,
        Tissue.LIVER_LESION: 25.0,
        Tissue.SPLEEN: 74.0,
        Tissue.PANCREAS: 55.0,
    },
}
#: T2 with fat suppression (SPIR), arbitrary units: fluid and spleen bright, liver and muscle dark
_T2_SIGNAL = {
    Tissue.AIR: MR_NOISE_FREE_AIR,
    Tissue.FAT: 95.0,
    Tissue.MUSCLE: 120.0,
    Tissue.MARROW: 170.0,
    Tissue.CORTEX: 25.0,
    Tissue.LUNG: 25.0,
    Tissue.BOWEL: 360.0,
    Tissue.GAS: 10.0,
    Tissue.FLUID: 1050.0,
    Tissue.STOMACH: 300.0,
    Tissue.KIDNEY: 560.0,
    Tissue.KIDNEY_MEDULLA: 720.0,
    Tissue.ARTERY: 40.0,
    Tissue.VEIN: 130.0,
    Tissue.HEART: 150.0,
    Tissue.LIVER: 220.0,
    Tissue.LIVER_VESSEL: 330.0,
    Tissue.LIVER_LESION: 520.0,
    Tissue.SPLEEN: 460.0,
    Tissue.GALLBLADDER: 1100.0,
    Tissue.PANCREAS: 300.0,
}


def show_ct(tissues: Tissues, rng: np.random.Generator, *, phase: Phase, noise_hu: float, difficulty: float) -> Image:
    """CT of a tissue image, int16 (k, j, i), clipped to `CT_RANGE_HU` as public sets often are.

    `difficulty` in [0, 1] brings fatty livers and late or weak contrast, so that organs stand out less.
    """
    timing = rng.uniform(0.75, 1.15) - 0.35 * difficulty
    values = np.zeros(len(Tissue), dtype=np.float32)
    for tissue, plain in _PLAIN_HU.items():
        values[tissue] = plain + timing * _ENHANCEMENT_HU[phase].get(tissue, 0.0)
    fatty_hu = max(0.0, rng.normal(4.0 + 26.0 * difficulty, 5.0))
    values[list(LIVER_TISSUES[:1])] -= fatty_hu
    values[values > -80.0] += rng.normal(0.0, 4.0)
    signal = _optics(values[tissues], rng, blur_voxels=0.55)
    signal += _grain(tissues.shape, rng) * noise_hu
    return np.clip(np.round(signal), *CT_RANGE_HU).astype(np.int16)


def show_mr(tissues: Tissues, space: Space, rng: np.random.Generator, *, noise: float, difficulty: float) -> Image:
    """T2-like MR of a tissue image, int16 (k, j, i), arbitrary units."""
    values = np.zeros(len(Tissue), dtype=np.float32)
    for tissue, level in _T2_SIGNAL.items():
        values[tissue] = level * rng.normal(1.0, 0.06 + 0.06 * difficulty)
    signal = _optics(values[tissues], rng, blur_voxels=0.6)
    bias = waves(space, rng, count=4, wavelength_mm=(350.0, 700.0), amplitude=0.12 + 0.12 * difficulty)
    signal *= np.exp(bias)
    real = signal + rng.standard_normal(signal.shape, dtype=np.float32) * noise
    imaginary = rng.standard_normal(signal.shape, dtype=np.float32) * noise
    gain = rng.uniform(0.6, 1.6)
    return np.round(np.hypot(real, imaginary) * gain).clip(0, 4095).astype(np.int16)


def _optics(signal: Signal, rng: np.random.Generator, *, blur_voxels: float) -> Signal:
    """Partial volume and a little texture inside the tissues."""
    soft = _smooth(signal, (0.35, blur_voxels, blur_voxels))
    texture = _smooth(rng.standard_normal(signal.shape, dtype=np.float32), (0.6, 1.6, 1.6))
    texture /= texture.std()
    return (soft + texture * np.float32(0.02) * np.abs(soft)).astype(np.float32)


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> Signal:
    """CT noise of unit deviation: correlated in plane by the reconstruction kernel, not between slices."""
    noise = _smooth(rng.standard_normal(shape, dtype=np.float32), (0.0, 0.6, 0.6))
    return (noise / noise.std()).astype(np.float32)


def _smooth(signal: Signal, sigma: tuple[float, float, float]) -> Signal:
    return cast(Signal, ndimage.gaussian_filter(signal, sigma, truncate=3.0))
