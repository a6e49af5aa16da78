"""A study's file that was damaged, by whatever means, is refused; what it says is never believed half."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rankitect.contracts import Proposal, Trial
from rankitect.errors import RunFolderError
from rankitect.study.database import explain_damage, reading
from rankitect.study.files import disk_trouble
from rankitect.study.ledger import Budget
from rankitect.study.plan import Limits
from rankitect.study.schema import COLUMNS
from rankitect.study.store import Store
from tests.study.test_study import run
from tests.study.toys import Point, Quadratic, RandomPoints, downgrade, sql


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with trials that are done, failed and repeated, and with a baseline."""
    from rankitect.contracts import Baseline

    path = tmp_path_factory.mktemp("whole") / "run"
    baselines = [Baseline("production", Point({"x": 7, "y": 2}))]
    run(path, RandomPoints(total=10, size=3), Quadratic(misbehave={2: "raise"}), baselines)
    states = {(trial.state, trial.duplicate_of is None) for trial in contents(path)[0]}
    assert {("DONE", True), ("FAILED", True), ("DONE", False)} <= states
    return path


@pytest.fixture
def file(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole / "study.db", tmp_path / "study.db"))


def contents(path: Path) -> tuple[list[Trial], dict[str, Any], float]:
    with Store(path / "study.db", Point.from_json, readonly=True) as store:
        return store.trials, store.charges.totals(), store.charges.worked()


EDITS = [
    ("DELETE FROM batches", "which is not in the table of batches|has 0 rows"),
    ("DELETE FROM trials WHERE number = 11", "table trials has 10 rows"),
    ("DELETE FROM charges WHERE key LIKE 'prepare%'", "table charges has"),
    ("DELETE FROM sessions", "table sessions has 0 rows"),
    ("DELETE FROM meta WHERE key LIKE 'rows%'", "table batches has"),
    ("UPDATE trials SET fingerprint = replace(fingerprint, 'a', 'b') WHERE number = 2", "row '2' of its table trials"),
    ("UPDATE trials SET measurement = replace(measurement, '.', '.1') WHERE number = 1", "row '1' of its table trials"),
    ("UPDATE charges SET train_tokens = train_tokens + 1 WHERE key = 'trial:1'", "row 'trial:1' of its table charges"),
    ("INSERT INTO batches (batch, asked) VALUES (99, 4)", "row '99' of its table batches"),
    ("CREATE TRIGGER t AFTER UPDATE ON trials BEGIN DELETE FROM batches; END", "'t' is not in both its tables"),
    ("CREATE VIEW v AS SELECT * FROM trials", "'v' is not in both its tables"),
    ("DROP INDEX measured_once", "'measured_once' is not in both its tables"),
    ("ALTER TABLE trials ADD COLUMN more TEXT", "table 'trials' is not that of a study"),
    ("UPDATE meta SET value = '2' WHERE key = 'schema'", "format 2, and its table batches has a column 'checksum'"),
    ("UPDATE meta SET value = '1' WHERE key = 'schema'", "format 1, and its table batches has a column 'checksum'"),
    ("UPDATE meta SET value = '4' WHERE key = 'schema'", "study format 4"),
    ("UPDATE meta SET value = '' WHERE key = 'schema'", "study format"),
    ("UPDATE meta SET value = 2 WHERE key = 'schema'", "format 2, and"),
    ("DELETE FROM meta", "does not say its study format"),
]


@pytest.mark.parametrize(("statement", "text"), EDITS)
def test_what_was_edited_is_refused_and_left_as_it_is(file: Path, statement: str, text: str) -> None:
    sql(file, statement)
    before = file.read_bytes()
    for readonly in (True, False):
        with pytest.raises(RunFolderError, match=text) as error:
            Store(file, Point.from_json, readonly=readonly)
        assert len(str(error.value)) <= 500
    assert file.read_bytes() == before


@pytest.mark.parametrize(("table", "column"), [(table, c) for table, columns in COLUMNS.items() for c in columns])
def test_a_change_of_any_column_is_noticed(file: Path, table: str, column: str) -> None:
    text = {"standing": "'apart'", "state": "'WAITING'"}.get(column, f"{column} || ' '")
    value = f"CASE WHEN typeof({column}) = 'text' THEN {text} ELSE ifnull({column}, 0) + 1 END"
    sql(file, f"UPDATE {table} SET {column} = {value} WHERE rowid = (SELECT max(rowid) FROM {table})")
    with pytest.raises(RunFolderError, match="is not what was written"):
        Store(file, Point.from_json, readonly=True)


def test_a_flipped_byte_is_noticed_or_changes_nothing(whole: Path, file: Path) -> None:
    undamaged, before, random = file.read_bytes(), contents(whole), Random(0)
    refused = 0
    for place in random.sample(range(len(undamaged)), 150):
        damaged = bytearray(undamaged)
        damaged[place] ^= 1 << random.randrange(8)
        file.write_bytes(damaged)
        if (error := refusal(file.parent)) is None:
            assert contents(file.parent) == before
        else:
            refused += 1
            assert len(str(error)) <= 500
            assert disk_trouble(error, file.parent) == 0
    assert refused > 20


def refusal(folder: Path) -> RunFolderError | None:
    try:
        contents(folder)
    except RunFolderError as error:
        return error
    return None


def test_a_damaged_file_is_never_called_a_full_disk(tmp_path: Path) -> None:
    for text, code in (("database or disk is full", sqlite3.SQLITE_FULL), ("disk I/O error", sqlite3.SQLITE_IOERR)):
        with pytest.raises(RunFolderError, match="is not a readable study"), explain_damage(tmp_path / "s.db"):
            raise_as_sqlite(text, code)


def test_a_disk_that_takes_nothing_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(sqlite3.OperationalError), explain_damage(tmp_path / "s.db"):
        raise_as_sqlite("database or disk is full", sqlite3.SQLITE_FULL)


def raise_as_sqlite(text: str, code: int) -> None:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    raise error


def no_tables(file: Path) -> None:
    file.unlink()
    sql(file, "PRAGMA journal_mode=WAL")


EMPTY = [lambda file: file.write_bytes(b""), lambda file: file.unlink(), no_tables]


@pytest.mark.parametrize("damage", EMPTY)
@pytest.mark.parametrize("left", ["summary.json", "trials.csv", "trials", "state"])
def test_a_search_whose_file_is_lost_is_not_begun_again_over_its_results(
    whole: Path, tmp_path: Path, damage: Any, left: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for name in {"summary.json", "trials.csv", "trials", "state"} - {left}:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    damage(folder / "study.db")
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    with pytest.raises(RunFolderError, match=rf"study.db (holds nothing|is gone), and the {left} .* output_dir="):
        run(folder, RandomPoints(total=10, size=3))
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before


@pytest.mark.parametrize("damage", EMPTY)
def test_a_search_that_was_killed_before_its_file_had_tables_begins(whole: Path, tmp_path: Path, damage: Any) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(whole / "config.yaml", folder)
    (folder / "study.db").write_bytes(b"")
    damage(folder / "study.db")
    assert run(folder, RandomPoints(total=3)).ended == "finished"
    assert len(contents(folder)[0]) == 3


def test_a_file_without_checksums_is_read_and_brought_up_to_date(whole: Path, file: Path) -> None:
    before = contents(whole)
    downgrade(file)
    assert contents(file.parent) == before
    with Store(file, Point.from_json) as store:
        assert (store.trials, store.charges.totals()) == before[:2]
    sql(file, "UPDATE trials SET seed = 5 WHERE number = 3")
    with pytest.raises(RunFolderError, match="row '3' of its table trials is not what was written"):
        Store(file, Point.from_json, readonly=True)


PARTS = [
    ("UPDATE meta SET value = '1'", "format 1, and its table charges has a column 'eval_examples'"),
    ("UPDATE meta SET value = '3'", "is not that of a study"),
    ("ALTER TABLE batches ADD COLUMN standing TEXT", "format 2, and its table batches has a column 'standing'"),
    ("ALTER TABLE sessions ADD COLUMN checksum TEXT", "format 2, and its table sessions has a column 'checksum'"),
    ("ALTER TABLE charges DROP COLUMN train_flops", "format 2, and its table charges has no column 'train_flops'"),
    ("INSERT INTO meta VALUES ('rows of trials', '11')", "format 2, which had no 'rows of trials'"),
]


@pytest.mark.parametrize(("statement", "text"), PARTS)
def test_a_format_that_does_not_fit_the_columns_is_refused(file: Path, statement: str, text: str) -> None:
    downgrade(file)
    sql(file, statement)
    before = file.read_bytes()
    for readonly in (True, False):
        with pytest.raises(RunFolderError, match=text):
            Store(file, Point.from_json, readonly=readonly)
    assert file.read_bytes() == before


AT_1 = "WHERE number = 1"
LIES: list[tuple[str, str]] = [
    (f"UPDATE trials SET fingerprint = replace(fingerprint, 'a', 'b') {AT_1}", "has another fingerprint|is another"),
    ("UPDATE trials SET fingerprint = 'x' WHERE number = 2", "fingerprint: String should match"),
    ("DELETE FROM batches WHERE batch = 1", "is of batch 1, which is not in the table of batches"),
    ("DELETE FROM charges WHERE key = 'trial:1'", "trial 1 has no charge"),
    ("UPDATE charges SET key = 'trial:77' WHERE key = 'prepare:chunk 0'", "charge for 'trial:77'"),
    ("UPDATE charges SET seconds = 'soon' WHERE key = 'trial:1'", "table charges, seconds"),
    ("UPDATE trials SET measurement = '{' WHERE number = 1", "table trials, measurement: Invalid JSON"),
    ("UPDATE trials SET measurement = '[]' WHERE number = 1", "table trials, measurement"),
    ("UPDATE trials SET measurement = NULL WHERE number = 1", "is DONE, and its result says something else"),
    (f"UPDATE trials SET measurement = replace(measurement, 'trials/', '../') {AT_1}", "path inside of the run"),
    (f"UPDATE trials SET measurement = replace(measurement, 'trials/', '/etc/') {AT_1}", "path inside of the run"),
    ("UPDATE trials SET tags = '5' WHERE number = 1", "table trials, tags"),
    ("UPDATE trials SET architecture = '[]' WHERE number = 1", "architecture of trial 1 cannot be read"),
    ("UPDATE trials SET duplicate_of = 1, measurement = NULL, cause = 'x', state = 'FAILED' WHERE number=3", "repeats"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "text"), LIES)
def test_contradictions_are_refused_without_checksums_too(file: Path, statement: str, text: str) -> None:
    downgrade(file)
    sql(file, statement)
    with pytest.raises(RunFolderError, match=text) as error:
        Store(file, Point.from_json)
    assert len(str(error.value)) <= 500


# --- another configuration, by resume=force --------------------------------------------------------------------------
def architectures(trials: list[Trial]) -> list[str]:
    return [trial.architecture.fingerprint for trial in trials if trial.duplicate_of is None]


def forced(path: Path, controller: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """Go on in the folder with another configuration."""
    from rankitect.study.folder import RunFolder
    from tests.study import test_study

    monkeypatch.setattr(test_study, "RunFolder", lambda path, config: RunFolder(path, {"seed": 1}, force=True))
    try:
        return run(path, controller, **options)
    finally:
        monkeypatch.undo()


def resumed(path: Path, controller: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """Repeat that command without force."""
    from rankitect.study.folder import RunFolder
    from tests.study import test_study

    monkeypatch.setattr(test_study, "RunFolder", lambda path, config: RunFolder(path, {"seed": 1}))
    try:
        return run(path, controller, **options)
    finally:
        monkeypatch.undo()


def test_another_configuration_measures_what_it_proposes_and_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "run", RandomPoints(seed=0))
    before = contents(tmp_path / "run")[0]
    forced(tmp_path / "run", RandomPoints(seed=5), monkeypatch)
    run(tmp_path / "fresh", RandomPoints(seed=5))
    fresh = architectures(contents(tmp_path / "fresh")[0])
    trials = contents(tmp_path / "run")[0]
    assert trials[: len(before)] == before
    assert set(architectures(trials)) == {*architectures(before), *fresh}
    assert [t.architecture.fingerprint for t in trials[len(before) :]] == [
        t.architecture.fingerprint for t in contents(tmp_path / "fresh")[0]
    ]
    assert resumed(tmp_path / "run", RandomPoints(seed=5), monkeypatch).ended == "finished"
    assert contents(tmp_path / "run")[0] == trials


def test_what_both_configurations_propose_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "run", RandomPoints(total=8))
    before = contents(tmp_path / "run")[0]
    forced(tmp_path / "run", RandomPoints(total=20), monkeypatch)
    run(tmp_path / "fresh", RandomPoints(total=20))
    trials = contents(tmp_path / "run")[0]
    assert trials[:8] == before
    assert [t.architecture for t in trials] == [t.architecture for t in contents(tmp_path / "fresh")[0]]


def test_what_was_not_finished_under_the_earlier_configuration_is_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "run", RandomPoints(seed=0), budget=Budget(trials=6), limits=Limits(batch=4))
    with Store(tmp_path / "run" / "study.db", Point.from_json) as store:
        store.add_batch(9, 1, [Proposal(Point({"x": 77, "y": 1}))], 0)
    forced(tmp_path / "run", RandomPoints(seed=5), monkeypatch)
    trials = contents(tmp_path / "run")[0]
    assert all(trial.finished for trial in trials)
    assert Point({"x": 77, "y": 1}).fingerprint not in architectures(trials)


def test_killed_while_the_configurations_were_compared_it_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "run", RandomPoints(seed=0, total=12))

    class Killed(RandomPoints):
        def ask(self, n: int) -> list[Any]:
            if self.proposed >= 8:
                raise OSError(errno.EIO, "as if the process ended here")
            return super().ask(n)

    with pytest.raises(Exception, match="as if the process ended here"):
        forced(tmp_path / "run", Killed(seed=0, total=20), monkeypatch)
    resumed(tmp_path / "run", RandomPoints(seed=0, total=20), monkeypatch)
    run(tmp_path / "fresh", RandomPoints(seed=0, total=20))
    [mine, fresh] = [[t.architecture for t in contents(tmp_path / name)[0]] for name in ("run", "fresh")]
    assert mine == fresh


def test_a_summary_of_the_folder_says_the_same_as_its_store(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["ledger"]["trials"]["failed"] == sum(
        t.state == "FAILED" and t.duplicate_of is None for t in contents(whole)[0]
    )


def test_a_reader_sees_one_moment_of_a_search_that_goes_on(file: Path) -> None:
    with (
        Store(file, Point.from_json) as writer,
        Store(file, Point.from_json, readonly=True) as reader,
        reading(file) as other,
    ):
        before = reader.times(), reader.charges.worked()
        [trial] = writer.add_batch(7, 1, [Proposal(Point({"x": 55, "y": 2}))], 0)
        writer.start(trial.number)
        session = writer.charges.open_session()
        writer.charges.keep_session(session, 1000.0)
        assert (reader.times(), reader.charges.worked()) == before
        assert other.execute("SELECT COUNT(*) FROM trials WHERE batch = 7").fetchone()[0] == 0
    with Store(file, Point.from_json, readonly=True) as reader:
        assert trial.number in reader.times()
