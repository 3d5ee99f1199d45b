"""The inference service on a real Triton that is restarted, cut off and given new versions under load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
from inference_process import InferenceProcess, Segmented
from phantom import Phantom, manifest_for, threshold_onnx
from rekindle.status import error_from_rpc
from servers.proxy import Proxy
from servers.triton import TritonServer

pytestmark = pytest.mark.timeout(400)


class Versions:
    """Packages that segment the phantom in ways that can be told apart, and what each must give."""

    def __init__(self, phantom: Phantom) -> None:
        self._phantom = phantom
        liver, spleen = phantom.mask == 6, phantom.mask == 1
        seen = np.clip(phantom.image, -200, 250).astype(np.float64)
        mean, deviation = float(seen.mean()), float(seen.std())
        both = {hu: (hu - mean) / deviation for hu in (50, 120, 150, 240)}
        #: Thresholds of the two organs -> the mask. One organ swallows the other where its threshold is too high.
        self.kinds = {
            "right": ((both[50], both[150]), phantom.mask),
            "spleen only": ((both[120], both[150]), np.where(spleen, 1, 0)),
            "liver only": ((both[50], both[240]), np.where(liver, 6, 0)),
        }

    def package(self, kind: str) -> tuple[bytes, bytes]:
        thresholds, _ = self.kinds[kind]
        model = threshold_onnx(thresholds).SerializeToString()
        return manifest_for(model, thresholds), model

    def broken(self) -> tuple[bytes, bytes]:
        thresholds, _ = self.kinds["right"]
        proto = threshold_onnx(thresholds)
        proto.graph.node[0].op_type = "Confabulate"
        model = proto.SerializeToString()
        return manifest_for(model, thresholds), model


@dataclass
class Load:
    """Clients that segment one file again and again, and what became of it."""

    segment: Callable[[], Segmented]
    clients: int = 3
    results: list[Segmented] = field(default_factory=list)
    errors: list[grpc.RpcError] = field(default_factory=list)
    #: What a client did not expect at all.
    crashes: list[Exception] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(130)
            assert not thread.is_alive()
        assert [] == self.crashes

    def wait_for(self, count: int, timeout_s: float = 180.0) -> None:
        """Until so many further volumes have been segmented."""
        wanted = len(self.results) + count
        self._wait(lambda: len(self.results) >= wanted, timeout_s)

    def wait_for_error(self, timeout_s: float = 60.0) -> None:
        wanted = len(self.errors) + 1
        self._wait(lambda: len(self.errors) >= wanted, timeout_s)

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            assert [] == self.crashes
            assert time.monotonic() < deadline, f"{len(self.results)} results, errors {self.errors[-3:]}"
            time.sleep(0.02)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.results.append(self.segment())
            except grpc.RpcError as error:
                self.errors.append(error)
                self._stop.wait(0.2)
            except Exception as crash:
                self.crashes.append(crash)
                return


@pytest.fixture
def phantom() -> Phantom:
    return Phantom()


@pytest.fixture
def versions(phantom: Phantom) -> Versions:
    return Versions(phantom)


@pytest.fixture
def own_triton(tmp_path: Path) -> Iterator[TritonServer]:
    """One that this test may kill."""
    with TritonServer(tmp_path / "triton") as server:
        yield server


@pytest.fixture
def line(own_triton: TritonServer) -> Iterator[Proxy]:
    with Proxy(own_triton.port) as proxy:
        yield proxy


@pytest.fixture
def service(tmp_path: Path, own_triton: TritonServer, line: Proxy) -> Iterator[InferenceProcess]:
    """12 slices are six batches here, two under way at a time."""
    (tmp_path / "service").mkdir()
    with InferenceProcess(
        tmp_path / "service",
        triton_address=f"127.0.0.1:{line.port}",
        triton_repository=own_triton.repository,
        engine_batch=2,
        triton_in_flight=2,
        compute_threads=3,
        triton_max_queue_delay_us=100,
    ) as process:
        yield process


def assert_right(results: list[Segmented], expected: dict[str, np.ndarray]) -> None:
    """Each mask is wholly that of the version that it names."""
    for result in results:
        np.testing.assert_array_equal(expected[result.model_version_id], result.voxels)


def unavailable(errors: list[grpc.RpcError]) -> set[tuple[grpc.StatusCode, str]]:
    return {(error.code(), error_from_rpc(error).reason) for error in errors}


def test_a_hot_swap_fails_no_request_and_mixes_no_versions(
    service: InferenceProcess, versions: Versions, phantom: Phantom, tmp_path: Path
) -> None:
    """Under load: two new versions, one that does not load, a rollback to a version that was unloaded."""
    file = phantom.file(tmp_path)
    ids = {"right": service.register(*versions.package("right"))}
    service.activate(ids["right"])
    with Load(lambda: service.segment(file)) as load:
        load.wait_for(3)
        for kind, before in (("spleen only", "right"), ("liver only", "spleen only")):
            ids[kind] = service.register(*versions.package(kind))
            service.activate(ids[kind], instead_of=ids[before])
            load.wait_for(3)
        with pytest.raises(grpc.RpcError) as refused:
            service.register(*versions.broken())
        assert "MODEL_NOT_LOADABLE" == error_from_rpc(refused.value).reason
        load.wait_for(3)
        service.activate(ids["right"], instead_of=ids["liver only"])
        load.wait_for(6)
    assert [] == load.errors
    assert set(ids.values()) == {result.model_version_id for result in load.results}
    assert ids["right"] == load.results[-1].model_version_id
    assert_right(load.results, {ids[kind]: versions.kinds[kind][1] for kind in ids})


def test_after_a_kill_of_triton_work_goes_on_by_itself(
    service: InferenceProcess, own_triton: TritonServer, versions: Versions, phantom: Phantom, tmp_path: Path
) -> None:
    """In between UNAVAILABLE that names the model server; afterwards the model is loaded again, unasked."""
    file, right = phantom.file(tmp_path), service.register(*versions.package("right"))
    service.activate(right)
    with Load(lambda: service.segment(file)) as load:
        load.wait_for(3)
        own_triton.kill()
        load.wait_for_error()
        other = versions.package("liver only")
        with pytest.raises(grpc.RpcError) as away:
            service.register(*other)
        own_triton.start()
        load.wait_for(6)
    service.activate(service.register(*other), instead_of=right)
    assert grpc.StatusCode.UNAVAILABLE == away.value.code()
    assert "model server" in (away.value.details() or "")
    assert {(grpc.StatusCode.UNAVAILABLE, "MODEL_SERVER_UNAVAILABLE")} == unavailable(load.errors)
    assert_right(load.results, {right: phantom.mask})


def test_after_a_cut_line_work_goes_on_by_itself(
    service: InferenceProcess, line: Proxy, versions: Versions, phantom: Phantom, tmp_path: Path
) -> None:
    """The connection is lost with batches under way, then healed; no mask is wrong."""
    file, right = phantom.file(tmp_path), service.register(*versions.package("right"))
    service.activate(right)
    with Load(lambda: service.segment(file)) as load:
        for _ in range(2):
            load.wait_for(2)
            line.cut()
            load.wait_for_error()
            line.heal()
        load.wait_for(6)
    assert {(grpc.StatusCode.UNAVAILABLE, "MODEL_SERVER_UNAVAILABLE")} == unavailable(load.errors)
    assert_right(load.results, {right: phantom.mask})


def test_a_moment_without_a_line_is_not_noticed(
    service: InferenceProcess, line: Proxy, versions: Versions, phantom: Phantom, tmp_path: Path
) -> None:
    """A connection that breaks once, in the middle of a batch, fails no volume."""
    file, right = phantom.file(tmp_path), service.register(*versions.package("right"))
    service.activate(right)
    with Load(lambda: service.segment(file), clients=1) as load:
        for _ in range(3):
            load.wait_for(1)
            line.break_after(2000)
        load.wait_for(2)
    assert [] == load.errors
    assert_right(load.results, {right: phantom.mask})


def test_a_killed_service_leaves_no_shared_memory_behind(
    service: InferenceProcess, own_triton: TritonServer, versions: Versions, phantom: Phantom, tmp_path: Path
) -> None:
    """What the killed process shared with Triton is freed by the next one on this host."""
    file, right = phantom.file(tmp_path), service.register(*versions.package("right"))
    service.activate(right)
    expected = service.segment(file)
    process = service._process
    assert process is not None
    assert regions(process.pid)
    process.kill()
    process.wait()
    assert regions(process.pid)
    with service:
        np.testing.assert_array_equal(expected.voxels, service.segment(file).voxels)
        assert not regions(process.pid)
        again = service._process
        assert again is not None
    assert not regions(again.pid)


def regions(pid: int) -> list[Path]:
    """Shared memory of a process."""
    return [path for path in Path("/dev/shm").glob("rekindle-shm-*") if path.name.split("-")[-2] == str(pid)]
