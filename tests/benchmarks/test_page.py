"""Tables, the page and what a command writes."""

import json

from benchmarks.command import Result, run
from benchmarks.report import overhead_rows, page
from benchmarks.table import markdown_table, text_table

HEAD = {"case": "mlp", "parameters": 10, "batch": 64, "optimizer": "sgd"}
ROWS = [
    {**HEAD, "variant": "bare", "step_ms": 2.0},
    {**HEAD, "variant": "auto", "step_ms": 2.5, "added_ms": 0.5, "backend": "fused"},
    {**HEAD, "variant": "Avalanche Naive", "step_ms": 4.0},
    {**HEAD, "variant": "Avalanche RWalk", "step_ms": 9.0, "added_ms": 5.0},
    {**HEAD, "optimizer": "adam", "variant": "bare", "step_ms": 3.0},
]


def measured(quick):
    """Time nothing."""
    result = Result({"delta_t": 10}, ROWS, {"mlp.sgd.auto_vs_avalanche": 0.1})
    result.note("same")
    result.note("same")
    result.settings["seen_quick"] = quick
    return result


def test_a_command_prints_and_writes_everything_that_a_reader_needs(tmp_path, capsys):
    run("step_overhead", measured, ["--json", str(tmp_path / "new" / "out.json"), "--quick"])
    report = json.loads((tmp_path / "new" / "out.json").read_text(encoding="utf-8"))
    parts = {"benchmark", "description", "machine", "versions", "date", "settings", "rows", "ratios", "notes"}
    assert set(report) == parts
    assert report["settings"]["quick"] is report["settings"]["seen_quick"] is True
    assert report["notes"] == ["same"]
    assert report["machine"]["torch_threads"] >= 1
    assert report["versions"]["rwalk"]
    printed = capsys.readouterr().out
    for text in ("torch_threads", "compiler", "Avalanche RWalk", "mlp.sgd.auto_vs_avalanche = 0.1", "note: same"):
        assert text in printed


def test_overhead_has_one_line_for_each_case_and_optimizer():
    first, second = overhead_rows(ROWS)
    assert first == {**HEAD, "bare step": 2.0, "+ auto": 0.5, "auto takes": "fused", "+ Avalanche RWalk": 5.0}
    assert second == {**HEAD, "optimizer": "adam", "bare step": 3.0}


def test_the_page_holds_results_verdicts_and_what_is_missing(tmp_path):
    report = run("step_overhead", measured, [])
    text = page({"step_overhead": report}, {"step_overhead": ["images/step_overhead.svg"]})
    assert "![step_overhead](images/step_overhead.svg)" in text
    assert "| mlp | 10 | 64 | sgd | 2 | 0.5 | fused | 5 |" in text
    assert "| end_to_end | accuracy_gained_high | – | ≥ 0 | no result |" in text
    assert "## roofline\n\nNot measured." in text


def test_tables_line_up_and_show_what_is_missing():
    rows = [{"name": "a", "ms": 1234.5678}, {"name": "long", "share": 0.000123456}]
    assert text_table(rows) == "name    ms      share\na     1235          –\nlong     –  0.0001235"
    assert markdown_table(rows).splitlines()[1:3] == ["|---|---:|---:|", "| a | 1235 | – |"]
