"""What the use cases need of the outside: state, objects, an engine, a reader and a writer of files."""

from rekindle_inference.ports.observing import Observation, Observer, Stage, Unobserved
from rekindle_inference.ports.outside import (
    Engine,
    FoundSeries,
    Objects,
    Onto,
    Origin,
    Package,
    Parsed,
    Reader,
    Segmentations,
    SegmentationSource,
    Serving,
    Writer,
)
from rekindle_inference.ports.results import (
    ResultReads,
    ResultWrites,
    SegmentationReads,
    SegmentationWrites,
)
from rekindle_inference.ports.state import (
    Reads,
    Request,
    State,
    UploadReads,
    UploadWrites,
    Writes,
)

__all__ = [
    "Engine",
    "FoundSeries",
    "Objects",
    "Observation",
    "Observer",
    "Onto",
    "Origin",
    "Package",
    "Parsed",
    "Reader",
    "Reads",
    "Request",
    "ResultReads",
    "ResultWrites",
    "SegmentationReads",
    "SegmentationSource",
    "SegmentationWrites",
    "Segmentations",
    "Serving",
    "Stage",
    "State",
    "Unobserved",
    "UploadReads",
    "UploadWrites",
    "Writer",
    "Writes",
]
