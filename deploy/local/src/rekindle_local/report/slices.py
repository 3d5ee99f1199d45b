"""The paper's Fig. 2: truth, prediction and overlap on one slice per case, over the model versions."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rekindle_imaging.masks import dice
from rekindle_imaging.volume import Volume

Slice = npt.NDArray[np.float32]

#: display window for CT, in HU; other modalities are shown between percentiles
CT_WINDOW_HU = (-160.0, 240.0)
TRUTH = "#ffd60a"
#: per organ in order: prediction outside the truth, and overlap with it
PREDICTION = ("#e02424", "#1f5bff", "#00a3a3", "#7a7a7a")
OVERLAP = ("#ff8c1a", "#9b45d6", "#7bd389", "#c0c0c0")
OPACITY = 0.55


@dataclass(frozen=True, kw_only=True)
class CaseFigure:
    """One row: a case with the coarse labels that several versions gave it. All on one geometry."""

    case: str
    image: Volume
    truth: Volume
    #: column heading -> label volume; every case has the same headings
    predictions: Mapping[str, Volume]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Pixels for the report."""

    #: organ -> label value in the label volumes
    organs: Mapping[str, int]
    cases: Sequence[CaseFigure]
    modality: str = "CT"


@dataclass(frozen=True, kw_only=True)
class _View:
    """One axial slice in radiological convention: the patient's right on the reader's left, front on top."""

    grey: Slice
    truth: npt.NDArray[np.uint8]
    predictions: Mapping[str, npt.NDArray[np.uint8]]
    aspect: float
    height_mm: float
    width_mm: float


def slices_png(figures: Figures) -> str:
    """The figure as a `data:` address with a PNG."""
    columns = ["", *figures.cases[0].predictions]
    views = [_view(case, figures.modality, figures.organs) for case in figures.cases]
    width = 11.0
    cell = width / len(columns)
    heights = [cell * view.height_mm / view.width_mm + 0.24 for view in views]
    figure = Figure(figsize=(width, sum(heights) + 0.25), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.01, wspace=0.0, hspace=0.0)  # type: ignore[union-attr]
    grid = figure.subplots(len(views), len(columns), squeeze=False, height_ratios=heights)
    for row, (case, view) in enumerate(zip(figures.cases, views, strict=True)):
        _show(grid[row][0], view, heading="image" if row == 0 else "", caption=case.case)
        for column, heading in enumerate(case.predictions, start=1):
            axes = grid[row][column]
            caption = _scores(case, heading, figures.organs)
            _show(axes, view, heading=heading if row == 0 else "", caption=caption)
            axes.imshow(
                _overlay(view.truth, view.predictions[heading], tuple(figures.organs.values())),
                aspect=view.aspect,
                interpolation="nearest",
            )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _view(case: CaseFigure, modality: str, organs: Mapping[str, int]) -> _View:
    image, spacing = _to_lps(case.image)
    truth, _ = _to_lps(case.truth)
    k = _best_slice(truth, tuple(organs.values()))
    rows, columns = _body_box(image[k])
    low, high = CT_WINDOW_HU if modality == "CT" else np.percentile(image, (1.0, 99.5))
    grey = np.clip((image[k, rows, columns].astype(np.float32) - low) / (high - low), 0.0, 1.0)
    predictions = {name: _to_lps(volume)[0][k, rows, columns] for name, volume in case.predictions.items()}
    return _View(
        grey=grey.astype(np.float32),
        truth=truth[k, rows, columns].astype(np.uint8),
        predictions=predictions,
        aspect=spacing[1] / spacing[0],
        height_mm=grey.shape[0] * spacing[1],
        width_mm=grey.shape[1] * spacing[0],
    )


def _to_lps(volume: Volume) -> tuple[npt.NDArray[Any], tuple[float, ...]]:
    oriented = sitk.DICOMOrient(volume.to_sitk(), "LPS")
    return sitk.GetArrayFromImage(oriented), oriented.GetSpacing()


def _best_slice(truth: npt.NDArray[Any], values: tuple[int, ...]) -> int:
    """The slice that shows most of every organ: largest product of shares of the largest areas."""
    worth = np.ones(truth.shape[0])
    for value in values:
        areas = (truth == value).sum(axis=(1, 2))
        if areas.max() > 0:
            worth *= areas / areas.max() + 1e-3
    return int(worth.argmax())


def _body_box(image: npt.NDArray[Any]) -> tuple[slice, slice]:
    """In-plane box around everything brighter than the background, with a small border."""
    values = image.astype(np.float32)
    bright = values > values.min() + 0.04 * (np.percentile(values, 99.5) - values.min())
    boxes: list[slice] = []
    for axis in (1, 0):
        # A few bright voxels of noise or table do not make the body.
        found = np.flatnonzero(bright.mean(axis=axis) > 0.04)
        first, last = (found[0], found[-1]) if found.size else (0, bright.shape[1 - axis] - 1)
        boxes.append(slice(max(int(first) - 3, 0), int(last) + 4))
    return boxes[0], boxes[1]


def _overlay(
    truth: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8], values: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    layer = np.zeros((*truth.shape, 4), dtype=np.float32)
    for order, value in enumerate(values):
        wanted, given = truth == value, predicted == value
        layer[given & ~wanted] = _rgba(PREDICTION[order])
        layer[wanted & ~given & (layer[..., 3] == 0)] = _rgba(TRUTH)
        layer[wanted & given] = _rgba(OVERLAP[order])
    return layer


def _rgba(colour: str) -> tuple[float, float, float, float]:
    red, green, blue = (int(colour[start : start + 2], 16) / 255.0 for start in (1, 3, 5))
    return red, green, blue, OPACITY


def _show(axes: Axes, view: _View, *, heading: str, caption: str) -> None:
    axes.imshow(view.grey, cmap="gray", vmin=0.0, vmax=1.0, aspect=view.aspect, interpolation="bilinear")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(heading, fontsize=10, fontweight="bold", color="#1d2733")
    axes.set_xlabel(caption, fontsize=8.5, color="#3c4856")


def _scores(case: CaseFigure, heading: str, organs: Mapping[str, int]) -> str:
    predicted = case.predictions[heading]
    parts = [(organ, dice(predicted.voxels == value, case.truth.voxels == value)) for organ, value in organs.items()]
    return "  ".join(f"{organ} {score:.2f}" for organ, score in parts if score is not None)
