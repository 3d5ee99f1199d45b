"""`report.json` has the agreed keys, and `report.html` shows its numbers and needs nothing else."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume
from rekindle_local.report import (
    Baseline,
    CaseDetail,
    CaseFigure,
    Figures,
    Ledger,
    Refusal,
    Report,
    Retrospective,
    RoundRow,
    TimeModelCost,
    write_report,
)

REPORT_KEYS = {
    "organs",
    "strategy",
    "seed",
    "preset",
    "data",
    "baseline",
    "rounds",
    "retrospective",
    "ledger",
}
EXTRA_KEYS = {"cases_detail", "time_models", "refused", "recipe", "campaign_seconds", "notes"}
ROUND_KEYS = {
    "round",
    "model",
    "version",
    "promoted",
    "cases",
    "labelled_total",
    "minutes",
    "minutes_per_case",
    "dice",
    "hd95_mm",
    "candidate_dice",
    "train_seconds",
}
BASELINE_KEYS = {"threshold_dice", "minutes_no_update", "minutes_from_nothing"}
LEDGER_KEYS = {"minutes_total", "minutes_heldout", "minutes_per_case_first", "minutes_per_case_last", "cases"}


def scores(liver: float, spleen: float) -> dict[str, float | None]:
    """Dice of two organs and their mean."""
    return {"liver": liver, "spleen": spleen, "mean": (liver + spleen) / 2}


def row(number: int, *, promoted: bool = True, **values: Any) -> RoundRow:
    """A round with two cases."""
    base: dict[str, Any] = {
        "round": number,
        "model": "sustainer",
        "version": f"sustainer-{number}",
        "promoted": promoted,
        "cases": 2,
        "labelled_total": 2 * number,
        "minutes": 21.4,
        "minutes_per_case": 10.7,
        "dice": scores(0.8412, 0.8034),
        "hd95_mm": {"liver": 14.3, "spleen": 12.6},
        "candidate_dice": scores(0.8412, 0.8034),
        "train_seconds": 96.0,
    }
    return RoundRow(**{**base, **values})


def rounds_made_up() -> tuple[RoundRow, ...]:
    """Three rounds after the igniter, the second of them refused."""
    igniter = row(
        0,
        model="igniter",
        version="igniter-1",
        cases=0,
        minutes=0.0,
        minutes_per_case=None,
        dice=scores(0.7714, 0.7346),
        candidate_dice=scores(0.7714, 0.7346),
        train_seconds=312.0,
    )
    refused = row(2, promoted=False, version="sustainer-1", candidate_dice=scores(0.8123, 0.4321), minutes=17.8)
    last = row(3, dice=scores(0.9131, 0.8765), minutes=13.2, minutes_per_case=6.6)
    return igniter, row(1), refused, last


LOOKED_AT_AGAIN = Retrospective(
    round=0,
    model="igniter",
    version="igniter-1",
    cases=2,
    dice=scores(0.7222, 0.6888),
    hd95_mm={"liver": 33.1, "spleen": 35.4},
)
A_CASE = CaseDetail(
    case="case_07",
    round=1,
    heldout=False,
    version="igniter-1",
    minutes=11.9,
    reading_minutes=0.4,
    editing_minutes=11.5,
    predicted_minutes=12.8,
    dice=scores(0.7999, 0.7111),
)
ANOTHER_COST = TimeModelCost(
    name="exact path",
    description="a second opinion",
    minutes_total=91.3,
    minutes_no_update=111.1,
    minutes_from_nothing=155.5,
)
REFUSED = Refusal(round=2, model="sustainer", reason="the spleen collapsed", candidate_dice=scores(0.8123, 0.4321))


def made_up() -> Report:
    """Of a campaign that never was, with everything that a report can have."""
    return Report(
        organs=("liver", "spleen"),
        strategy="easy-first",
        seed=3,
        preset="cpu",
        data="a folder <of> volumes",
        baseline=Baseline(threshold_dice=scores(0.5511, 0.3377), minutes_no_update=120.9, minutes_from_nothing=203.7),
        rounds=rounds_made_up(),
        retrospective=(LOOKED_AT_AGAIN,),
        ledger=Ledger(
            minutes_total=82.2,
            minutes_heldout=29.8,
            minutes_per_case_first=10.7,
            minutes_per_case_last=6.6,
            cases=8,
        ),
        cases_detail=(A_CASE,),
        time_models=(ANOTHER_COST,),
        refused=(REFUSED,),
        recipe="default",
        notes=("The seed set has three CT.",),
    )


def toy_figures() -> Figures:
    """Two noise images of another orientation with a box for each organ."""
    geometry = Geometry(
        size=(40, 36, 6),
        spacing_mm=(4.0, 4.0, 8.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    )
    rng = np.random.default_rng(0)
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    labels[2:5, 8:20, 5:18] = 1
    labels[2:5, 20:28, 25:32] = 2
    image = (rng.normal(50.0, 20.0, geometry.shape)).astype(np.int16)
    truth, shifted = Volume(labels, geometry), Volume(np.roll(labels, 2, axis=2), geometry)
    cases = [
        CaseFigure(
            case=name,
            image=Volume(image, geometry),
            truth=truth,
            predictions={"igniter": shifted, "after round 3": truth},
        )
        for name in ("case_01", "case_02")
    ]
    return Figures(organs={"liver": 1, "spleen": 2}, cases=cases)


class Page(HTMLParser):
    """Collects what a page shows and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.shown: list[str] = []
        self.loads: list[str] = []
        self._hidden = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note every address."""
        self._hidden = tag == "style"
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "srcset"}]

    def handle_endtag(self, tag: str) -> None:
        """A style sheet ends."""
        self._hidden = False

    def handle_data(self, data: str) -> None:
        """Note every visible text."""
        if not self._hidden:
            self.shown.append(data)

    @property
    def text(self) -> str:
        """Everything that the page shows, with single spaces."""
        return " ".join(" ".join(self.shown).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The made-up report as JSON content and HTML text."""
    json_path, html_path = write_report(made_up(), toy_figures(), tmp_path_factory.mktemp("report"))
    assert ("report.json", "report.html") == (json_path.name, html_path.name)
    return json.loads(json_path.read_text(encoding="utf-8")), html_path.read_text(encoding="utf-8")


def test_json_has_exactly_the_agreed_keys(written: tuple[dict[str, Any], str]) -> None:
    """Top level, rounds, baseline and ledger have their keys, no more and no fewer."""
    content, _ = written
    assert REPORT_KEYS | EXTRA_KEYS == set(content)
    assert BASELINE_KEYS == set(content["baseline"])
    assert LEDGER_KEYS == set(content["ledger"])
    assert [ROUND_KEYS] * 4 == [set(item) for item in content["rounds"]]
    assert {"liver", "spleen", "mean"} == set(content["rounds"][0]["dice"])
    assert {"liver", "spleen"} == set(content["rounds"][0]["hd95_mm"])


def test_json_keeps_full_precision(written: tuple[dict[str, Any], str]) -> None:
    """Numbers are not rounded on their way into the JSON."""
    content, _ = written
    assert 0.7346 == content["rounds"][0]["dice"]["spleen"]
    assert 120.9 == content["baseline"]["minutes_no_update"]
    assert content["rounds"][0]["minutes_per_case"] is None


def expected_texts(report: Report) -> set[str]:
    """Every Dice with three decimals, every time and distance with one."""
    rows, baseline, ledger = report.rounds, report.baseline, report.ledger
    dice = [
        value
        for item in (*(row.dice for row in rows), *(item.dice for item in report.retrospective))
        for value in item.values()
    ]
    dice += [*baseline.threshold_dice.values(), *report.cases_detail[0].dice.values()]
    dice += list(report.refused[0].candidate_dice.values())
    tenths = [value for item in (*rows, *report.retrospective) for value in item.hd95_mm.values()]
    tenths += [row.minutes for row in rows if row.cases] + [row.minutes_per_case for row in rows]
    tenths += [baseline.minutes_no_update, baseline.minutes_from_nothing]
    tenths += [ledger.minutes_total, ledger.minutes_heldout]
    tenths += [ledger.minutes_per_case_first, ledger.minutes_per_case_last]
    case, model = report.cases_detail[0], report.time_models[0]
    tenths += [case.minutes, case.reading_minutes, case.editing_minutes, case.predicted_minutes]
    tenths += [model.minutes_total, model.minutes_no_update, model.minutes_from_nothing]
    return {f"{x:.3f}" for x in dice if x is not None} | {f"{x:.1f}" for x in tenths if x is not None}


def test_html_shows_the_numbers_of_the_json(written: tuple[dict[str, Any], str]) -> None:
    """Dice, HD95, minutes, counts, names and reasons can all be read on the page."""
    text = Page(written[1]).text
    words = set(re.findall(r"[\w.]+\d", text))
    assert set() == expected_texts(made_up()) - words
    for name in ("igniter-1", "sustainer-3", "case_07", "easy-first", "the spleen collapsed", "three CT"):
        assert name in text
    # By hand: 1 - 82.2 / 120.9 = 32 %, 1 - 82.2 / 203.7 = 60 %, 1 - 91.3 / 111.1 = 18 %.
    for saving in ("32 %", "60 %", "18 %"):
        assert saving in text


def test_html_calls_every_minute_simulated(written: tuple[dict[str, Any], str]) -> None:
    """Headings, tiles and axes say "simulated minutes"."""
    text = Page(written[1]).text
    assert text.lower().count("simulated minutes") >= 8
    assert "minutes per case" not in re.sub(r"simulated minutes per case", "", text, flags=re.IGNORECASE)


def test_html_refers_to_nothing_outside(written: tuple[dict[str, Any], str]) -> None:
    """No address but data: and fragments, and no http anywhere, not even in the drawings."""
    html = written[1]
    assert set() == {load[:5] for load in Page(html).loads if not load.startswith("#")} - {"data:"}
    assert "http" not in html
    assert "url(" not in re.sub(r"url\(#", "", html)
    assert "@import" not in html
    assert "<script" not in html


def test_html_escapes_what_comes_from_outside(written: tuple[dict[str, Any], str]) -> None:
    """A folder's name is text, not markup."""
    assert "a folder &lt;of&gt; volumes" in written[1]
    assert "<of>" not in written[1]


def test_same_report_gives_the_same_files(tmp_path: Path) -> None:
    """Nothing in the files depends on the clock."""
    first, again = (write_report(made_up(), toy_figures(), tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_report_without_figures_or_extras_is_complete(tmp_path: Path) -> None:
    """Slices, details, refusals and time models may be missing."""
    bare = dataclasses.replace(
        made_up(), cases_detail=(), time_models=(), refused=(), retrospective=(), notes=(), recipe=""
    )
    _, html_path = write_report(bare, None, tmp_path)
    page = Page(html_path.read_text(encoding="utf-8"))
    assert "What the models drew" not in page.text
    assert "Refused networks" not in page.text
    assert "82.2" in page.text


def test_undefined_scores_are_null_and_a_dash(tmp_path: Path) -> None:
    """NaN never reaches the JSON, and the page shows a dash."""
    report = made_up()
    undefined = dataclasses.replace(report.rounds[3], hd95_mm={"liver": float("nan"), "spleen": None})
    report = dataclasses.replace(report, rounds=(*report.rounds[:3], undefined))
    json_path, html_path = write_report(report, None, tmp_path)
    content = json.loads(json_path.read_text(encoding="utf-8"))
    assert {"liver": None, "spleen": None} == content["rounds"][3]["hd95_mm"]
    assert "nan" not in Page(html_path.read_text(encoding="utf-8")).text.lower().split()


def test_contradictory_minutes_are_refused() -> None:
    """A total that is not the held-out minutes plus the rounds' minutes is an error."""
    report = made_up()
    with pytest.raises(ValueError, match="not the sum"):
        dataclasses.replace(report, ledger=dataclasses.replace(report.ledger, minutes_total=80.0))


def test_report_starts_with_the_igniter() -> None:
    """Row 0 is the igniter with no cases."""
    report = made_up()
    with pytest.raises(ValueError, match="row 0"):
        dataclasses.replace(report, rounds=report.rounds[1:])
