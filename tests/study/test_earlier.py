"""Summaries of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

from rankitect.study.earlier import up_to_date
from rankitect.study.summary import Summary

OLD = Path(__file__).parents[1] / "old_runs" / "v1"


def test_roles_are_inferred_where_a_summary_states_none() -> None:
    data = json.loads((OLD / "mobile_llm" / "summary.json").read_text())
    assert "role" not in data["objectives"][0]
    summary = Summary.model_validate(up_to_date(data))
    assert [(o.name, o.role) for o in summary.objectives] == [("perplexity", "quality"), ("block_flops", "cost")]
    metrics = summary.pareto[0].metrics
    assert {name for name, metric in metrics.items() if metric.role == "quality"} == {"perplexity", "bits_per_byte"}
    assert metrics["kv_cache_bytes"].role == "cost"


def test_roles_that_are_stated_stay() -> None:
    data = {"objectives": [{"name": "cache_perplexity_cost", "role": "diagnostic"}]}
    assert up_to_date(data) == data


def test_rows_that_were_counted_as_tokens_become_examples() -> None:
    data = json.loads((OLD / "ranking_blocks" / "summary.json").read_text())
    ledger = up_to_date(data)["ledger"]
    assert data["ledger"]["coin"] == "rows"
    assert "coin" not in ledger
    assert ledger["train_examples"] == data["ledger"]["train_tokens"] > 0
    assert ledger["stages"]["trials"]["eval_examples"] == data["ledger"]["stages"]["trials"]["eval_tokens"] > 0
    assert "train_tokens" not in ledger
