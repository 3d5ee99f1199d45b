"""Labels of inference's metrics: from the code alone, and bounded."""

import pytest
from prometheus_client import CollectorRegistry
from rekindle.errors import CapacityExceeded, DependencyUnavailable, InvalidInput
from rekindle_inference.adapters.prometheus import InferenceMetrics
from rekindle_inference.ports import Stage

UPLOAD = "/rekindle.api.inference.v1.VolumeService/UploadVolume"


@pytest.fixture
def registry():
    return CollectorRegistry()


def rejected(registry):
    return {
        sample.labels["reason"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "rekindle_volumes_rejected_total"
    }


def test_only_refused_files_are_rejected_volumes(registry):
    """A store that is away, a full disk and other calls' wrong input are none."""
    metrics = InferenceMetrics(registry)
    metrics.call_refused(UPLOAD, DependencyUnavailable("away"))
    metrics.call_refused(UPLOAD, CapacityExceeded("full", reason="DISK_FULL"))
    metrics.call_refused("/rekindle.api.inference.v1.VolumeService/GetVolume", InvalidInput("no"))
    assert {} == rejected(registry)
    metrics.call_refused(UPLOAD, InvalidInput("no", reason="BAD_GEOMETRY"))
    assert {"BAD_GEOMETRY": 1} == rejected(registry)


def test_a_reason_that_is_no_constant_is_not_repeated(registry):
    """What a process that reads foreign files may say ends as one label, and the number of labels is bounded."""
    metrics = InferenceMetrics(registry)
    metrics.series_refused("Canary^Patient")
    for number in range(150):
        metrics.series_refused(f"REASON_{number}")
    reasons = rejected(registry)
    assert 101 == len(reasons)
    assert 51 == reasons["OTHER"]
    metrics.series_refused("REASON_7")
    assert 2 == rejected(registry)["REASON_7"]


def test_a_stage_entered_several_times_is_observed_once_with_its_sum(registry):
    """Three slice batches of 2 s between waits of 5 s: 6 s of model."""
    now = iter([0.0, 2.0, 7.0, 9.0, 14.0, 16.0])
    metrics = InferenceMetrics(registry, clock=lambda: next(now))
    with metrics.prediction() as observed:
        for _ in range(3):
            with observed.stage(Stage.MODEL):
                pass
    labels = {"stage": "model"}
    assert 6 == registry.get_sample_value("rekindle_inference_duration_seconds_sum", labels)
    assert 1 == registry.get_sample_value("rekindle_inference_duration_seconds_count", labels)


def test_what_nobody_foresaw_counts_as_internal(registry):
    """And goes on as it was raised."""
    metrics = InferenceMetrics(registry)
    with pytest.raises(ZeroDivisionError), metrics.prediction():
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), metrics.publication():
        raise ZeroDivisionError
    assert 1 == registry.get_sample_value("rekindle_inference_requests_total", {"code": "INTERNAL"})
    assert 1 == registry.get_sample_value("rekindle_model_publish_total", {"result": "failed"})
