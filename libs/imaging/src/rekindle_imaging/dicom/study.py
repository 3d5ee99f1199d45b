"""DICOM studies: the files of an archive sorted into series, each with the reason where it cannot be a volume."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from rekindle_imaging.dicom.archive import Member
from rekindle_imaging.dicom.instances import Instance, look_at
from rekindle_imaging.dicom.series import check_images, files_in
from rekindle_imaging.errors import VolumeError


@dataclass(slots=True, kw_only=True)
class FoundSeries:
    """The files of one series, in the order of the archive."""

    #: "" where the files do not say it.
    series_instance_uid: str
    #: Modality as the files state it; "" where they are not DICOM files.
    modality: str
    files: list[Member] = field(default_factory=list[Member])
    #: Why it is known by its headers alone to be no volume.
    failure: VolumeError | None = None


def take_apart(data: memoryview) -> list[FoundSeries]:
    """The series of an archive, in the order of their first files.

    Files that are no DICOM files make one series of their own per reason. Raises VolumeError for the archive itself.
    """
    found: dict[tuple[str, str], FoundSeries] = {}
    looked_at: dict[tuple[str, str], list[Instance]] = {}
    for number, member in enumerate(files_in(data), start=1):
        try:
            instance = look_at(data, member, number)
        except VolumeError as failure:
            key = ("", failure.reason)
            series = FoundSeries(series_instance_uid="", modality="", failure=failure)
            found.setdefault(key, series).files.append(member)
            continue
        key = (instance.study_instance_uid, instance.series_instance_uid)
        # A key of UIDs never equals one of a reason, which has letters in it.
        series = FoundSeries(series_instance_uid=instance.series_instance_uid, modality=instance.modality)
        found.setdefault(key, series).files.append(member)
        looked_at.setdefault(key, []).append(instance)
    for key, instances in looked_at.items():
        found[key].failure = _failure(instances)
    return list(found.values())


def instances_of(data: memoryview, series_instance_uid: str) -> list[Instance]:
    """The instances of one series of an archive; what is no DICOM file is passed over.

    Raises VolumeError: NOT_DICOM where there are none, and for the archive itself.
    """
    found: list[Instance] = []
    for number, member in enumerate(files_in(data), start=1):
        with suppress(VolumeError):
            found.append(look_at(data, member, number))
    of_series = [instance for instance in found if instance.series_instance_uid == series_instance_uid]
    if not of_series:
        raise VolumeError("NOT_DICOM", "the archive does not hold the series that it is said to hold")
    return of_series


def _failure(instances: Sequence[Instance]) -> VolumeError | None:
    try:
        check_images(instances)
    except VolumeError as failure:
        return failure
    return None
