"""The report page of a search: what it says, that it is one safe file, and what it does with damaged folders."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rankitect import reports
from rankitect.errors import RunFolderError
from rankitect.report import main
from rankitect.reports import write_report
from rankitect.reports.page import content_of
from rankitect.reports.run import load_run
from rankitect.reports.sections import sections
from tests.reports.example import COMPARISON, card, change, report, summary, trials, write_example, write_trials

PRODUCTION = [*COMPARISON, "model"]
FOUND = ["front", "candidates", "verdict"]
HOW = ["anytime", "importance", "picture", "health", "ledger", "reproduce"]
SECTIONS = [*FOUND, "next", *HOW, *PRODUCTION]
"""Of a report that leads with the search, as that of a language model does."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_example(tmp_path / "run")


def shorten(run: Path, by: int) -> None:
    """Cut off the end of the table of trials."""
    table = run / "trials.csv"
    table.write_bytes(table.read_bytes()[:by])


def not_finite(run: Path) -> None:
    """What no search writes: a value that is no number."""
    text = json.dumps(summary()).replace('"value": 19.4', '"value": NaN')
    (run / "summary.json").write_text(text, encoding="utf-8")


class _Tags(HTMLParser):
    """Collects tags, attributes and unbalanced elements."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without its beginning"
        assert self.open.pop() == tag


def test_report_has_every_section_in_three_formats(run: Path) -> None:
    page = write_report(run)
    assert page == run / "report" / "index.html"
    html, text = page.read_text(encoding="utf-8"), (page.parent / "report.md").read_text(encoding="utf-8")
    cards = report(run)["cards"]
    assert [c["id"] for c in cards] == SECTIONS
    for c in cards:
        assert f'id="{c["id"]}"' in html
        assert c["title"] in text
    assert sorted(p.name for p in page.parent.iterdir()) == ["index.html", "report.json", "report.md"]


def test_page_is_one_file_without_addresses_elsewhere(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    tags = _Tags(html)
    assert tags.open == []
    for tag, attributes in tags.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            where = attributes.get(name)
            assert where is None or re.match(r"(#|\.\./candidates/|report\.(md|json)$|data:image/)", where), where
    assert "http" not in html.replace('xmlns="http://www.w3.org/2000/svg"', "").replace("http-equiv", "")
    assert "@import" not in html


def test_report_is_the_same_every_time(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_verdict_says_how_much_better_than_the_baseline_of_equal_cost(run: Path) -> None:
    found = card(run, "verdict")
    assert found["status"] == "PASS"
    assert "7 of 7 candidates beat" in found["finding"]
    row = next(r for r in found["tables"][0]["rows"] if r["Block FLOPs, % of the backbone"] == pytest.approx(0.6))
    assert row["Best baseline's perplexity"]["value"] == 31.5
    assert row["Best baseline's perplexity"]["note"].startswith("measured")
    assert row["Gain"] == pytest.approx(1 - 26.4 / 31.5)
    assert row["Clear"] == "yes"


def test_verdict_fails_where_no_candidate_is_better(run: Path) -> None:
    data = summary()
    for candidate in data["pareto"]:
        candidate["metrics"]["perplexity"] = {"value": 60.0, "unit": "perplexity", "role": "quality"}
    change(run, pareto=data["pareto"])
    found = card(run, "verdict")
    assert found["status"] == "FAIL"
    assert "least bad" in found["finding"]


def test_the_stated_roles_count_whatever_the_names_say(run: Path) -> None:
    """The words in `kv_cache_perplexity` and `weight_kib` say the opposite of what these are."""
    data = summary()
    names = {"perplexity": "kv_cache_perplexity", "block_flops": "weight_kib"}
    for holder in (*data["baselines"], *data["pareto"]):
        holder["metrics"] = {names[name]: holder["metrics"][name] for name in names}
    objectives = [objective | {"name": names[objective["name"]]} for objective in data["objectives"]]
    change(run, **data | {"objectives": objectives})
    front = card(run, "front")["figures"][0]["data"]
    assert front["quality"].startswith("KV cache perplexity")
    assert front["cost"].startswith("Weight kib")
    assert front["points"][1]["quality"] == 20.2
    assert card(run, "verdict")["status"] == "PASS"
    assert [row["Cost"] for row in card(run, "cost")["tables"][0]["rows"]] == ["Weight kib"]


def test_what_was_really_computed_stands_beside_what_is_charged(run: Path) -> None:
    data = summary()
    ledger = data["ledger"] | {"computed": {"train_tokens": 300000, "eval_tokens": 3000000, "seconds": 1000.0}}
    change(run, ledger=ledger)
    spent = card(run, "ledger")
    assert spent["tables"][0]["rows"][-1]["Train tokens"] == 300000
    assert spent["tables"][0]["rows"][-2]["Train tokens"] == 507904
    assert "3.30 M tokens were really computed" in spent["finding"]


def test_every_section_has_a_template_and_a_place_of_its_own() -> None:
    every = sections()
    sometimes = ("bits", "budgets", "guard", "latency", "questions", "rules", "warnings")
    assert [section.id for section in every if section.id not in sometimes] == [
        "launch",
        "next",
        *PRODUCTION[1:],
        *FOUND,
        *HOW,
    ]
    assert len({section.order for section in every}) == len(every)
    folder = Path(reports.__file__).parent / "sections"
    assert {section.id for section in every} <= {path.stem for path in folder.glob("*.j2")}


def test_example_follows_the_summary_that_studies_write() -> None:
    from rankitect.study.summary import Summary

    Summary.model_validate(summary())


def test_candidates_table_links_their_files_and_shows_intervals(run: Path) -> None:
    rows = card(run, "candidates")["tables"][0]["rows"]
    assert [r["Rank"] for r in rows][:8] == [1, 2, 3, 4, 5, 6, 7, "baseline"]
    assert rows[0]["Perplexity ↓"]["note"] == "19.2 to 19.6, n = 3" or "n = 3" in rows[0]["Perplexity ↓"]["note"]
    assert rows[0]["Files"]["links"]["weights"].startswith("../candidates/01-")


def test_picture_compares_with_the_backbone_of_the_trials(run: Path) -> None:
    found = card(run, "picture")
    assert found["status"] == "PASS"
    data = found["figures"][0]["data"]
    assert data["prefix"] == "layers"
    assert data["backbone"]["ffn"] == [1536] * 30
    assert data["candidate"]["query_heads"][0] == 9
    for index in data["dropped"]:
        assert data["candidate"]["runs"][index] == 0
        assert data["candidate"]["ffn"][index] is None


def test_importance_finds_the_choice_that_mattered(run: Path) -> None:
    found = card(run, "importance")
    first = found["tables"][0]["rows"][0]
    assert first["Choice"] == "layers.29.attn"
    assert first["Beyond chance"] == "yes"


def test_health_counts_failures_by_cause_and_duplicates(run: Path) -> None:
    found = card(run, "health")
    checks = {r["Check"]: r["Found"] for r in found["tables"][0]["rows"]}
    assert checks["Failed"] == 2
    assert checks["Duplicates"] == 6
    causes = {r["Cause of failure"]: r["Trials"] for r in found["tables"][1]["rows"]}
    assert causes == {"the loss is not a number at step 3": 1, "out of memory": 1}


def test_health_warns_of_a_limit_that_could_be_widened(run: Path) -> None:
    data = summary()
    for candidate in data["pareto"]:
        for path in candidate["architecture"]["choices"]:
            if path.endswith(".ffn"):
                candidate["architecture"]["choices"][path] = 512
    change(run, pareto=data["pareto"])
    place = run / "candidates" / "01-00000000"
    place.mkdir(parents=True)
    choices = [{"path": f"layers.{i}.ffn", "values": [512, 1024, 1536]} for i in range(30)]
    (place / "space.json").write_text(json.dumps({"choices": choices}))
    found = card(run, "health")
    assert found["status"] == "WARN"
    assert "layers.*.ffn" in json.dumps(found["tables"][0])


def test_ledger_shows_every_stage_and_the_searchs_total(run: Path) -> None:
    rows = card(run, "ledger")["tables"][0]["rows"]
    assert [r["Stage"] for r in rows] == ["prepare", "trials", "baselines", "total of the search"]
    assert rows[-1]["Train tokens"] == 507904


@pytest.mark.parametrize(
    ("keys", "na"),
    [
        ({"pareto": []}, {"verdict", "front", "candidates", "picture", "next"}),
        ({"objectives": []}, {"verdict", "front", "anytime", "importance"}),
        ({"baselines": []}, {"verdict"}),
        ({"ledger": {}}, {"ledger"}),
        (
            {"objectives": [{"name": "perplexity", "unit": "", "direction": "min", "role": "quality"}]},
            {"verdict", "front"},
        ),
    ],
)
def test_section_that_cannot_be_computed_stays_with_the_reason(run: Path, keys: dict[str, Any], na: set[str]) -> None:
    change(run, **keys)
    cards = report(run)["cards"]
    assert [c["id"] for c in cards] == SECTIONS
    assert {c["id"] for c in cards if c["status"] == "NA" and c["id"] not in PRODUCTION} - {"next"} == na - {"next"}
    assert all(c["reason"] for c in cards)


def test_run_without_trials_is_reported_with_the_reason(run: Path) -> None:
    (run / "trials.csv").unlink()
    cards = {c["id"]: c for c in report(run)["cards"]}
    assert cards["anytime"]["status"] == cards["importance"]["status"] == "NA"
    assert "no trials.csv" in cards["anytime"]["reason"]
    assert cards["verdict"]["status"] == "PASS"


def test_few_trials_give_no_importance(run: Path) -> None:
    change(run, ledger={"seconds": 1.0})
    write_trials(run, trials()[:14])
    found = card(run, "importance")
    assert found["status"] == "NA"
    assert "at least 10" in found["reason"]


def test_single_objective_with_better_high_values(run: Path) -> None:
    """Accuracy: higher is better, no cost."""
    data = summary()
    for holder in (*data["baselines"], *data["pareto"]):
        holder["metrics"] = {
            "accuracy": {"value": 1 / holder["metrics"]["perplexity"]["value"], "unit": "share", "role": "quality"}
        }
    change(run, **data | {"objectives": [{"name": "accuracy", "unit": "share", "direction": "max", "role": "quality"}]})
    rows = [row | {"accuracy": 1 / row["perplexity"]} if row.get("perplexity") else row for row in trials()]
    write_trials(run, rows)
    best = [r["Best accuracy at any cost"] for r in card(run, "anytime")["tables"][0]["rows"]]
    assert best == sorted(best)


def test_graph_svg_is_shown_where_choices_have_no_positions(run: Path) -> None:
    data = summary()
    first = data["pareto"][0]
    for candidate in data["pareto"]:
        candidate["architecture"]["choices"] = {"width": 64}
    change(run, pareto=data["pareto"][:1])
    place = run / "candidates" / f"01-{first['fingerprint'][:8]}"
    place.mkdir(parents=True)
    (place / "graph.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    html = write_report(run).read_text(encoding="utf-8")
    assert "data:image/svg+xml;base64," in html
    assert "alert(1)" not in html


def test_everything_from_the_run_is_escaped(run: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'|`*[x](javascript:alert(3))"
    data = summary()
    data |= {"space": evil, "task": evil, "controller": evil, "reproduce": evil, "versions": {evil: evil}}
    data["ledger"]["ended"] = evil
    data["ledger"]["stages"][evil] = {"seconds": 1.0}
    data["baselines"][1]["name"] = evil
    data["pareto"][0]["metrics"][evil] = {"value": 1.0, "unit": evil, "role": "cost"}
    data["pareto"][0]["artifacts"] = {evil: "candidates/<img src=x>"}
    data["pareto"][0]["architecture"]["choices"] |= {evil: evil, f"layers.0.{evil.replace('.', '')}": evil}
    data["objectives"].append({"name": evil, "unit": evil, "direction": "max", "role": "diagnostic"})
    (run / "summary.json").write_text(json.dumps(data), encoding="utf-8")
    (run / "config.yaml").write_text(f"# {evil}\nspace: {{}}\n", encoding="utf-8")
    rows = trials()
    rows[9] |= {"state": "FAILED", "cause": evil}
    for row in rows[20:40]:
        row["evaluator"] = evil
    write_trials(run, rows)
    page = write_report(run)
    tags = _Tags(page.read_text(encoding="utf-8"))
    assert tags.open == []
    assert [tag for tag, _ in tags.tags].count("script") == 1
    assert not any(tag == "img" for tag, _ in tags.tags)
    for _, attributes in tags.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert not (attributes.get("href") or "").startswith(("javascript", "../.."))
    text = (page.parent / "report.md").read_text(encoding="utf-8")
    outside_code = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert "<script" not in outside_code
    assert "<img" not in outside_code
    assert not re.search(r"(?<!\\)\]\(javascript", outside_code)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "summary.json").write_text('{"schema": 1, "sp'), "half-written"),
        (lambda run: (run / "summary.json").write_bytes(b"\xff\xfe\x00"), "half-written or damaged"),
        (lambda run: (run / "summary.json").write_text("[]"), "not a search's summary"),
        (lambda run: change(run, schema=2), "schema 2; this version reads schema 1"),
        (lambda run: change(run, seed="many"), "field `seed`"),
        (
            lambda run: not_finite(run),
            "has nan where a finite number belongs",
        ),
        (lambda run: change(run, ledger={"seconds": "long"}), r"field `ledger\.seconds`"),
        (lambda run: change(run, ledger=[]), r"field `ledger`"),
        (lambda run: change(run, pareto=[{"rank": 1}]), r"field `pareto\.0\.fingerprint`"),
        (lambda run: (run / "summary.json").unlink(), "no summary.json yet"),
        (lambda run: [p.unlink() for p in run.iterdir()], "not a run folder"),
        (lambda run: (run / "trials.csv").write_text("a,b\n1,2\n"), "no column `state`"),
        (lambda run: shorten(run, -10), r"trials\.csv is cut off.* Repeat the search's command"),
        (
            lambda run: write_trials(run, trials()[:40]),
            r"trials\.csv has 40 of the 63 trials that summary\.json counts",
        ),
        (lambda run: (run / "report").write_text(""), "is a file"),
    ],
)
def test_damaged_folder_is_refused_with_what_to_do(run: Path, spoil: Any, message: str) -> None:
    spoil(run)
    with pytest.raises(RunFolderError, match=message):
        write_report(run)


def test_half_written_summary_leaves_the_old_report(run: Path) -> None:
    before = write_report(run).read_bytes()
    (run / "summary.json").write_text('{"schema": 1')
    with pytest.raises(RunFolderError):
        write_report(run)
    assert (run / "report" / "index.html").read_bytes() == before


def test_command_prints_the_page_or_one_line_of_error(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"run={run}"]) == 0
    assert capsys.readouterr().out.strip().endswith("index.html")
    assert main([f"run={tmp_path / 'nowhere'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert "does not exist" in error
    assert "Traceback" not in error


def test_cards_of_a_run_need_no_files_written(run: Path) -> None:
    assert [c.id for c in content_of(load_run(run)).cards] == SECTIONS
    assert not (run / "report").exists()
