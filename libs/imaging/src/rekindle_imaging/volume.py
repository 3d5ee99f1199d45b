"""A volume: voxels and where they lie."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels (k, j, i) = (slices, rows, columns) on a grid. Raises VolumeError("BAD_GEOMETRY") if they
    differ in shape."""

    voxels: NDArray[Any]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.voxels.shape != self.geometry.shape:
            raise VolumeError(
                "BAD_GEOMETRY",
                f"voxels of shape {self.voxels.shape} on a grid of shape {self.geometry.shape}",
            )

    def to_sitk(self) -> sitk.Image:
        """A SimpleITK image with a copy of the voxels."""
        return image_of(self.voxels, self.geometry)

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> "Volume":
        """From a three-dimensional scalar SimpleITK image; copies the voxels. Raises
        VolumeError("NOT_3D")."""
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise VolumeError("NOT_3D", "a volume has three dimensions and one value per voxel")
        return cls(sitk.GetArrayFromImage(image), geometry_of(image))


def geometry_of(image: sitk.Image | sitk.ImageFileReader) -> Geometry:
    """Geometry of a three-dimensional SimpleITK image, or of what a reader has read the header of."""
    return Geometry(
        size=image.GetSize(),
        spacing_mm=image.GetSpacing(),
        origin_mm=image.GetOrigin(),
        direction=image.GetDirection(),
    )


def image_of(voxels: NDArray[Any], geometry: Geometry) -> sitk.Image:
    """A SimpleITK image of an array (k, j, i); copies it."""
    source = voxels.astype(np.uint8) if voxels.dtype == np.bool_ else np.ascontiguousarray(voxels)
    image = sitk.GetImageFromArray(source)
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    return image
