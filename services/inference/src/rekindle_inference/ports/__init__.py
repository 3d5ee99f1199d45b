"""What lies outside: an engine, readers and writers of files, and whoever measures the work."""

from rekindle_inference.ports.observing import Observation, Observer, Stage, Unobserved
from rekindle_inference.ports.outside import (
    Engine,
    FoundSeries,
    MaskProvenance,
    MaskTarget,
    Package,
    Parsed,
    Reader,
    Segmentations,
    SegmentationSource,
    Serving,
    Writer,
)

__all__ = [
    "Engine",
    "FoundSeries",
    "MaskProvenance",
    "MaskTarget",
    "Observation",
    "Observer",
    "Package",
    "Parsed",
    "Reader",
    "SegmentationSource",
    "Segmentations",
    "Serving",
    "Stage",
    "Unobserved",
    "Writer",
]
