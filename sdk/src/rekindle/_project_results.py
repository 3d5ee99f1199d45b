"""A project's durable segmentations, its feed of results, and the limits below which organs are left out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from rekindle._call import new_request_id
from rekindle._project_base import ProjectBase
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as segmentations
from rekindle.convert import duration, number_of
from rekindle.errors import DeadlineExceeded, DependencyUnavailable
from rekindle.models import selector
from rekindle.results import QualityLimit, Result
from rekindle.segmentations import WATCH_S, DurableSegmentation, PriorityName, priority_value
from rekindle.volumes import Source, upload_image

#: Pause between tries while the service is away and a feed is followed.
_AWAY_S = 1.0
#: Length of a call that has certainly reached the service.
_QUIET_S = 30.0


class ProjectResults(ProjectBase):
    """The part of a project's handle that a PACS uses."""

    def segment(
        self,
        volume: Source,
        *,
        priority: PriorityName = "routine",
        model_version_id: str | None = None,
        time_to_live_s: float | None = None,
        request_id: str | None = None,
    ) -> DurableSegmentation:
        """Asks for an image to be segmented, with the active version unless one is given; returns at once.

        `volume` is the id of an image, or an image to upload first (a Path, bytes, a SimpleITK image). Raises
        CapacityExceeded while the queue is full, after having tried again as the service asked.
        """
        request = segmentations.CreateSegmentationRequest(
            request_id=request_id or new_request_id(),
            project_id=self.id,
            volume_id=self._image_id(volume),
            model=selector(model_version_id),
            priority=priority_value(priority),
        )
        if time_to_live_s is not None:
            request.time_to_live.CopyFrom(duration(time_to_live_s))
        answer = self._services.segmentations.CreateSegmentation(request)
        return DurableSegmentation(self._services, answer.segmentation)

    def segmentation(self, segmentation_id: str) -> DurableSegmentation:
        """A durable segmentation by its id. Raises NotFound."""
        request = segmentations.GetSegmentationRequest(project_id=self.id, segmentation_id=segmentation_id)
        answer = self._services.segmentations.GetSegmentation(request)
        return DurableSegmentation(self._services, answer.segmentation)

    def segmentations(self, *, states: Iterable[str] = (), volume_id: str = "") -> Iterator[DurableSegmentation]:
        """Durable segmentations, newest first."""
        words = [number_of(segmentations.SegmentationState, state) for state in states]
        pages = self._pages(
            self._services.segmentations.ListSegmentations,
            segmentations.ListSegmentationsRequest,
            states=words,
            volume_id=volume_id,
        )
        return (DurableSegmentation(self._services, item) for page in pages for item in page.segmentations)

    def results(
        self, *, after: int = 0, timeout_s: float | None = None, patience_s: float | None = None
    ) -> Iterator[Result]:
        """Yields the feed of results after a cursor, then each new one, without an end.

        Keep the cursor of the last result that you have handled, and begin there the next time: nothing is missed.
        While the service is away it waits, for ever unless `patience_s` is given (then DependencyUnavailable).
        `timeout_s` ends it, with DeadlineExceeded.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        away_since: float | None = None
        while True:
            began = time.monotonic()
            left_s = WATCH_S if end is None else end - began
            if left_s <= 0:
                raise DeadlineExceeded(f"the feed was followed for {timeout_s:.0f} s", reason="FOLLOWED")
            try:
                for result in self._watch_results(after, left_s):
                    after, away_since = result.cursor, None
                    yield result
            except DeadlineExceeded:
                continue  # a day is over, or what was asked for
            except DependencyUnavailable:
                now = time.monotonic()
                # A feed that was silent for a while was there all that time.
                away_since = began if away_since is None or now - began > _QUIET_S else away_since
                if patience_s is not None and now - away_since >= patience_s:
                    raise
            time.sleep(min(_AWAY_S, left_s))

    def results_of(self, volume_id: str) -> Iterator[Result]:
        """All results of one image, newest first."""
        pages = self._pages(
            self._services.segmentations.ListResults, segmentations.ListResultsRequest, volume_id=volume_id
        )
        return (Result.from_proto(item, self._services) for page in pages for item in page.results)

    def publish_result(
        self,
        mask_volume_id: str,
        *,
        submission_id: str,
        origin: str = "corrected",
        model_version_id: str = "",
        retracted: bool = False,
    ) -> Result:
        """Delivers a person's mask ("corrected" or "reviewed"), or takes it back.

        For tools that keep submissions of their own; the scheduler publishes those of its cases by itself.
        """
        request = segmentations.PublishResultRequest(
            request_id=new_request_id(),
            project_id=self.id,
            mask_volume_id=mask_volume_id,
            origin=number_of(segmentations.ResultOrigin, origin),
            model_version_id=model_version_id,
            submission_id=submission_id,
            retracted=retracted,
        )
        answer = self._services.segmentations.PublishResult(request)
        return Result.from_proto(answer.result, self._services)

    def set_quality_limits(self, limits: Mapping[str, float | QualityLimit]) -> dict[str, QualityLimit]:
        """Replaces the limits: organ id to the least confidence, or to a QualityLimit. {} removes them all.

        Organs below are left out of results that are made from now on; coarse labels always have every organ.
        """
        given = {
            organ_id: limit if isinstance(limit, QualityLimit) else QualityLimit(least=limit)
            for organ_id, limit in limits.items()
        }
        request = segmentations.SetQualityLimitsRequest(
            request_id=new_request_id(),
            project_id=self.id,
            limits=[
                inference.QualityLimit(
                    organ_id=organ_id,
                    min_soft_dice_confidence=limit.least,
                    abstain_when_nothing_found=limit.abstain_when_nothing_found,
                )
                for organ_id, limit in given.items()
            ],
        )
        return _limits(self._services.segmentations.SetQualityLimits(request).limits)

    def quality_limits(self) -> dict[str, QualityLimit]:
        """Organ id to its limit."""
        return _limits(
            self._get(self._services.segmentations.GetQualityLimits, segmentations.GetQualityLimitsRequest).limits
        )

    def _image_id(self, volume: Source) -> str:
        return volume if isinstance(volume, str) else upload_image(self._services, self.id, volume, self.modality)

    def _watch_results(self, after: int, timeout_s: float) -> Iterator[Result]:
        request = segmentations.WatchResultsRequest(project_id=self.id, after_cursor=after)
        answers = self._services.segmentations.WatchResults(request, timeout=timeout_s)
        return (Result.from_proto(answer.result, self._services) for answer in answers)


def _limits(messages: Iterable[inference.QualityLimit]) -> dict[str, QualityLimit]:
    return {
        message.organ_id: QualityLimit(
            least=message.min_soft_dice_confidence, abstain_when_nothing_found=message.abstain_when_nothing_found
        )
        for message in messages
    }
