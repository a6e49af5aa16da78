"""Studies for other tools."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

import rankitect
from rankitect.export import main
from tests.data.test_files import files_of_at_most

CONFIGS = Path(__file__).parent / "study" / "configs"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "run"
    given = ["space=grid", "task=none", "controller=climber", "evaluator=quadratic", "report.page=false"]
    more = ["allowed_packages=[rankitect,tests]", "evaluator.final.misbehave={2: raise}", f"output_dir={path}"]
    rankitect.search([*given, *more], config_dir=CONFIGS, quiet=True)
    return path


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_table_has_a_column_for_each_choice_and_metric(run: Path, form: str, tmp_path: Path) -> None:
    out = tmp_path / "table"
    assert main([f"run={run}", f"to={form}", f"out={out}"]) == 0
    table = pd.read_parquet(out) if form == "parquet" else pd.read_csv(out)
    plain = pd.read_csv(run / "trials.csv")
    assert len(table) == len(plain)
    assert {"loss", "cost", "choice.x", "choice.y"} <= set(table.columns)
    first = json.loads(plain.architecture[0])["choices"]
    assert (table["choice.x"][0], table["choice.y"][0]) == (first["x"], first["y"])


def test_an_optuna_storage_holds_every_trial(run: Path, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    out = tmp_path / "study.db"
    assert main([f"run={run}", "to=optuna", f"out={out}"]) == 0
    study = optuna.load_study(study_name="run final", storage=f"sqlite:///{out}")
    plain = pd.read_csv(run / "trials.csv")
    assert len(study.trials) == len(plain)
    assert sum(t.state.name == "COMPLETE" for t in study.trials) == (plain.state == "DONE").sum()
    assert study.metric_names == ["loss", "cost"]
    done = plain[plain.state == "DONE"].iloc[0]
    same = next(t for t in study.trials if t.user_attrs["number"] == done.number)
    assert same.values == [done.loss, done.cost]
    assert same.datetime_start is not None
    assert same.datetime_complete is not None
    for found, written in ((same.datetime_start, done.started), (same.datetime_complete, done.ended)):
        assert found.astimezone(UTC) == datetime.fromisoformat(written)
    assert main([f"run={run}", "to=optuna", f"out={out}"]) == 2


def written(run: Path, table: pd.DataFrame) -> None:
    """Another trials.csv in a run folder, in whose summary nothing says which it was."""
    table.to_csv(run / "trials.csv", index=False)
    summary = json.loads((run / "summary.json").read_text())
    rest = {key: value for key, value in summary.items() if key not in ("files", "checksum")}
    (run / "summary.json").write_text(json.dumps(rest))


def changed(run: Path, folder: Path, *choices: dict[str, object]) -> Path:
    """A run of which the first trials have other choices."""
    copied = Path(shutil.copytree(run, folder))
    table = pd.read_csv(copied / "trials.csv", dtype=str, keep_default_na=False)
    for row, given in enumerate(choices):
        table.loc[row, "architecture"] = json.dumps({"space": "grid", "version": "1", "choices": given})
    written(copied, table.iloc[: len(choices)])
    return copied


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_choices_keep_their_kind_beside_missing_ones(run: Path, form: str, tmp_path: Path) -> None:
    given = ({"x": 1, "from": [0, 2], "on": True}, {"x": 64, "op": "fm"}, {"op": "sum"})
    out = tmp_path / "table"
    assert main([f"run={changed(run, tmp_path / 'run', *given)}", f"to={form}", f"out={out}"]) == 0
    if form == "csv":
        table = pd.read_csv(out, dtype=str, keep_default_na=False)
        assert list(table["choice.x"]) == ["1", "64", ""]
        assert list(table["choice.from"]) == ["[0, 2]", "", ""]
        return
    table = pd.read_parquet(out)
    assert str(table["choice.x"].dtype) == "Int64"
    assert table["choice.x"].dropna().tolist() == [1, 64]
    assert table["choice.from"].dropna().tolist() == ["[0, 2]"]
    assert table["choice.on"].dropna().tolist() == [True]
    assert list(table["choice.op"].isna()) == [True, False, False]


def test_a_search_that_goes_on_has_unfinished_trials(run: Path, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    copied = changed(run, tmp_path / "run", *({"x": n} for n in range(3)))
    table = pd.read_csv(copied / "trials.csv", dtype=str, keep_default_na=False)
    table.loc[1:, ["loss", "cost", "ended"]] = ""
    table.loc[1:, "state"] = ["RUNNING", "WAITING"]
    table.loc[2, "started"] = ""
    written(copied, table)
    assert main([f"run={copied}", "to=optuna"]) == 0
    study = optuna.load_study(study_name="run final", storage=f"sqlite:///{copied / 'optuna.db'}")
    assert [t.state.name for t in study.trials] == [table.state[0].replace("DONE", "COMPLETE"), "RUNNING", "WAITING"]
    assert [t.params for t in study.trials] == [{"x": 0}, {"x": 1}, {"x": 2}]


@pytest.mark.parametrize("form", ["optuna", "parquet", "csv"])
def test_no_other_file_is_written_over(run: Path, form: str, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    before = {path: path.read_bytes() for path in copied.iterdir() if path.is_file()}
    for path in before:
        assert main([f"run={copied}", f"to={form}", f"out={path}"]) == 2
    assert main([f"run={copied}", f"to={form}", f"out={tmp_path / 'nowhere' / 'x'}"]) == 2
    assert {path: path.read_bytes() for path in copied.iterdir() if path.is_file()} == before
    assert main([f"run={copied}", f"to={form}"]) == 0
    assert main([f"run={copied}", f"to={form}"]) == (2 if form == "optuna" else 0)


def test_what_cannot_be_exported_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"run={tmp_path}", "to=csv"]) == 2
    assert main([f"run={tmp_path}", "to=excel"]) == 2
    assert main(["folder=x"]) == 2
    said = capsys.readouterr().err
    assert "is no run folder" in said
    assert (
        "to= is 'excel', which is no format: optuna, parquet, csv; of a candidate, gguf, huggingface, decilm, "
        "executorch." in said
    )


def test_what_a_search_has_not_written_yet_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    summary = copied / "summary.json"
    whole = summary.read_text()
    for text, words in (
        (whole[:80], "half-written"),
        ('{"schema":1}', "field `space`: field required"),
        (None, "no summary"),
    ):
        summary.unlink()
        if text is not None:
            summary.write_text(text)
        assert main([f"run={copied}", "to=optuna"]) == 2
        said = capsys.readouterr().err
        assert "summary.json" in said
        assert words in said
        assert not (copied / "optuna.db").exists()
        summary.touch()
    (copied / "trials.csv").unlink()
    assert main([f"run={copied}", "to=csv"]) == 2
    assert "has no trials.csv yet" in capsys.readouterr().err


@pytest.mark.parametrize(("column", "cell"), [("started", "yesterday"), ("loss", "much"), ("architecture", "nan")])
def test_a_damaged_cell_is_an_error_and_no_traceback(
    run: Path, column: str, cell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    table = pd.read_csv(copy / "trials.csv", dtype=str)
    table.loc[1, column] = cell
    written(copy, table)
    assert main([f"run={copy}", "to=optuna"]) == 2
    assert "trials.csv is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["parquet", "csv", "optuna"])
def test_a_full_disk_ends_with_its_exit_code_and_leaves_no_file(
    run: Path, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    with files_of_at_most(64):
        assert main([f"run={run}", f"to={form}", f"out={tmp_path / 'table'}"]) == 3
    assert "written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["to=gguf"], "candidate= is missing"),
        (["to=gguf", "candidate=99"], "There is no candidate '99'"),
        (
            ["to=csv", "candidate=1"],
            "candidate= is for to=gguf, huggingface, decilm, executorch, and to=csv exports the whole study",
        ),
        (["to=gguf", "candidate=1", "out=@/none/m.gguf"], "There is no folder"),
        (["to=gguf", "candidate=1"], "has no candidate.json"),
    ],
)
def test_what_is_no_export_of_a_candidate_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    given = [word.replace("@", str(tmp_path)) for word in words]
    assert main([f"run={run}", *given]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
