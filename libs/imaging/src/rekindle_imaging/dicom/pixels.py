"""Pixels of one frame as the file stores them: whole numbers, before any rescaling."""

import tempfile
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from rekindle_imaging.dicom.instances import syntax_of, value_of
from rekindle_imaging.errors import VolumeError

_NATIVE: Final = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
#: Decoder of each transfer syntax, used even where others are installed.
_DECODERS: Final = {
    RLELossless: "pydicom",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
}
#: Transfer syntaxes that ITK decodes; it gets only the pixels.
_BY_ITK: Final = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
_FLOATS: Final = ("FloatPixelData", "DoubleFloatPixelData")


def stored_pixels(dataset: Dataset, frame: int, frames: int) -> NDArray[np.integer[Any]]:
    """Stored values (rows, columns) of one frame, with what lies beyond BitsStored cut off.

    Raises VolumeError: BAD_PIXELS, TRUNCATED, UNDECODABLE_PIXELS.
    """
    _check_description(dataset)
    syntax = syntax_of(dataset)
    if syntax in _NATIVE:
        pixels = _native(dataset, syntax, frame, frames)
    elif syntax in _DECODERS:
        pixels = _decoded(dataset, syntax, frame)
    elif syntax in _BY_ITK:
        pixels = _decoded_by_itk(dataset, syntax, frame, frames)
    else:
        raise VolumeError(
            "UNDECODABLE_PIXELS", f"the pixels are stored as {_syntax_name(syntax)}; export them without compression"
        )
    if pixels.shape != (dataset.Rows, dataset.Columns):
        raise VolumeError("BAD_PIXELS", "the compressed image has another size than its header says; export it again")
    return _within_bits(pixels, dataset)


def _check_description(dataset: Dataset) -> None:
    photometric, samples = value_of(dataset, "PhotometricInterpretation"), value_of(dataset, "SamplesPerPixel")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise VolumeError("BAD_PIXELS", "an image is not grey (one sample per pixel, MONOCHROME1 or 2); send CT or MR")
    allocated, stored, high, sign = (
        value_of(dataset, keyword) for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    )
    if allocated not in (8, 16, 32) or sign not in (0, 1) or not isinstance(stored, int):
        raise VolumeError("BAD_PIXELS", "BitsAllocated must be 8, 16 or 32, PixelRepresentation 0 or 1")
    if not 1 <= stored <= allocated or high != stored - 1:
        raise VolumeError("BAD_PIXELS", "BitsStored must be 1 to BitsAllocated, and HighBit one less; export it again")
    if "PixelData" not in dataset or any(keyword in dataset for keyword in _FLOATS):
        raise VolumeError("BAD_PIXELS", "an image has no whole-number pixels")


def _native(dataset: Dataset, syntax: UID, frame: int, frames: int) -> NDArray[np.integer[Any]]:
    data: Any = dataset["PixelData"].value
    width = dataset.BitsAllocated // 8
    each = dataset.Rows * dataset.Columns * width
    if not isinstance(data, bytes) or len(data) < each * frames:
        raise VolumeError("TRUNCATED", "an image has fewer pixels than its header says; send it again")
    if len(data) > each * frames + 1:
        raise VolumeError("BAD_PIXELS", "an image has more pixels than its header says; export it again")
    big = syntax == ExplicitVRBigEndian
    kind = "u" if dataset.PixelRepresentation == 0 else "i"
    dtype = np.dtype(f"{'>' if big else '<'}{kind}{width}")
    # 8-bit pixels in big-endian words are swapped in pairs by the standard.
    raw = np.frombuffer(data, dtype=dtype, count=each // width, offset=each * frame)
    if big and width == 1 and dataset["PixelData"].VR == "OW":
        raise VolumeError("BAD_PIXELS", "8-bit pixels in big-endian words are not taken; export as little endian")
    return raw.reshape(dataset.Rows, dataset.Columns).astype(dtype.newbyteorder("="))


def _decoded(dataset: Dataset, syntax: UID, frame: int) -> NDArray[np.integer[Any]]:
    try:
        decoder = get_decoder(syntax)
        array, _ = decoder.as_array(dataset, index=frame, raw=True, decoding_plugin=_DECODERS[syntax])
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever a damaged stream makes them raise
        raise _undecodable(syntax) from error
    return cast("NDArray[np.integer[Any]]", array)


def _decoded_by_itk(dataset: Dataset, syntax: UID, frame: int, frames: int) -> NDArray[np.integer[Any]]:
    """ITK sees a new file with nothing but this frame's pixels in it."""
    try:
        stream = get_frame(dataset["PixelData"].value, frame, number_of_frames=frames)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "frame.dcm"
            _bare(dataset, syntax, stream).save_as(path, enforce_file_format=True)
            reader = sitk.ImageFileReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileName(str(path))
            pixels = sitk.GetArrayFromImage(reader.Execute())
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever a damaged stream makes them raise
        raise _undecodable(syntax) from error
    if pixels.ndim == 3 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu":
        raise _undecodable(syntax)
    return pixels


def _bare(dataset: Dataset, syntax: UID, stream: bytes) -> Dataset:
    bare = Dataset()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = syntax
    bare.SOPClassUID = SecondaryCaptureImageStorage
    bare.SOPInstanceUID = "2.25.1"
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(bare, keyword, value_of(dataset, keyword))
    bare.SamplesPerPixel, bare.PhotometricInterpretation = 1, "MONOCHROME2"
    bare.PixelData = encapsulate([stream])
    bare["PixelData"].VR = "OB"
    bare["PixelData"].is_undefined_length = True
    return bare


def _within_bits(pixels: NDArray[np.integer[Any]], dataset: Dataset) -> NDArray[np.integer[Any]]:
    """Overlays and rubbish above the highest stored bit removed, the sign carried up from it."""
    kind = "u" if dataset.PixelRepresentation == 0 else "i"
    wide = pixels.astype(np.dtype(f"{kind}{dataset.BitsAllocated // 8}"))
    spare = dataset.BitsAllocated - dataset.BitsStored
    return (wide << spare) >> spare if spare else wide


def _undecodable(syntax: UID) -> VolumeError:
    return VolumeError("UNDECODABLE_PIXELS", f"the pixels ({_syntax_name(syntax)}) are damaged; send the series again")


def _syntax_name(syntax: UID) -> str:
    """The standard's name; an unknown UID is not repeated, since it may be anything."""
    return syntax.name if syntax and not syntax.is_private and syntax.name != str(syntax) else "an unknown syntax"
