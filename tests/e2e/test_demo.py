"""The demo command as a person runs it, on a folder of small synthetic abdomens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from rekindle_local.synthetic import make_dataset


@pytest.mark.timeout(420)
def test_demo_labels_every_case_and_writes_its_report(tmp_path: Path) -> None:
    """A folder without MR is labelled to the end, and the report accounts for every minute of every case."""
    data, out = tmp_path / "data", tmp_path / "out"
    make_dataset(data, seed=5, ct=3, mr=0, target=5)

    done = demo("--data", data, "--out", out, "--preset", "tiny", "--seed-ct", "2")

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((out / "report.json").read_text())
    assert sum(row["cases"] for row in report["rounds"]) + 1 == 5  # one of five is held out
    assert report["ledger"]["cases"] == 5
    assert report["rounds"][0]["cases"] == 0
    assert report["rounds"][0]["model"] == "igniter"
    minutes = sum(detail["minutes"] for detail in report["cases_detail"])
    assert minutes == pytest.approx(report["ledger"]["minutes_total"])
    assert "simulated minutes" in (out / "report.html").read_text().lower()


def test_demo_refuses_a_folder_without_volumes(tmp_path: Path) -> None:
    """The message names the folder that lacks volumes; nothing is started and no traceback is shown."""
    (tmp_path / "data").mkdir()

    done = demo("--data", tmp_path / "data", "--out", tmp_path / "out")

    assert done.returncode == 1
    assert "seed/ct/images holds no .nii.gz files" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_refuses_an_unknown_strategy(tmp_path: Path) -> None:
    """The message lists the strategies that there are."""
    make_dataset(tmp_path / "data", seed=5, ct=1, mr=0, target=1)

    done = demo("--data", tmp_path / "data", "--out", tmp_path / "out", "--strategy", "fastest")

    assert done.returncode == 2
    assert "easy-first" in done.stderr


def test_demo_never_clears_a_folder_that_it_did_not_make(tmp_path: Path) -> None:
    """An OUT folder with something else in it is left alone."""
    precious = tmp_path / "out" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")

    done = demo("--out", tmp_path / "out")

    assert done.returncode == 1
    assert precious.read_text() == "years of work"


def test_a_stopped_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    """SIGTERM in the middle of training ends the services and the training process too."""
    data, out = tmp_path / "data", tmp_path / "out"
    make_dataset(data, seed=5, ct=1, mr=0, target=2)
    command = [
        sys.executable,
        "-m",
        "rekindle_local",
        "demo",
        "--data",
        str(data),
        "--out",
        str(out),
        "--preset",
        "cpu",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "the igniter is trained" in line:
            break
    assert len(processes_in(out)) >= 3

    process.send_signal(signal.SIGTERM)

    assert process.wait(60) == 1
    process.stdout.close()
    assert processes_in(out) == []


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes whose working directory or arguments lie in `folder`."""
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            words = [process.cwd(), *process.cmdline()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder / "state") in word for word in words):
            found.append(" ".join(words))
    return found


def demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rekindle_local", "demo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
