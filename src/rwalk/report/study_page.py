"""A study as a page."""

from __future__ import annotations

from rwalk.report.charts import Chart
from rwalk.report.details import detail_charts
from rwalk.report.findings import evidence, headline
from rwalk.report.overview import course_chart, plane_chart
from rwalk.report.page import Page, Section, that_fit
from rwalk.report.response import response_chart
from rwalk.report.search import search_chart
from rwalk.report.study import Group, Study, shown
from rwalk.report.tables import difference_table, settings_table, shared_settings, summary_table, value_text

__all__ = ["figures_of", "study_page"]

KINDS = {
    "run": "One run", "comparison": "A comparison", "tuning": "A tuning, judged on held-out training data",
    "reproduction": "A published table, run again", "runs": "Several runs",
    "sweep": "A sweep",
}  # fmt: skip


def study_page(study: Study) -> Page:
    """All that is known of a study, on one page."""
    labels = [shown(group.label) for group in study.groups]
    tables = [table for table in (summary_table(study), difference_table(study)) if table]
    sections = [Section("figures", "The figures", shown(evidence(study), 400), tables=tables)]
    sections += [Section(chart.key, chart.title, charts=[chart]) for chart in overview(study)]
    sections += _details(study)
    settings = settings_table(study)
    if settings is not None:
        sections.append(
            Section("settings", _settings_say(study), "Settings that are not listed are the same.", tables=[settings])
        )
    errors = [(group.label, seed, error) for group in study.groups for seed, error in group.errors.items()]
    failed = [f"{shown(label)}, seed {seed}: {shown(error, 400)}" for label, seed, error in errors]
    if failed:
        sections.append(Section("failed", f"{len(failed)} runs failed", remarks=failed))
    if study.notes:
        sections.append(Section("notes", "What to know about it", remarks=[shown(note, 1000) for note in study.notes]))
    sections.append(_again(study))
    return Page(shown(headline(study)), _about(study), sections, labels if len(labels) > 1 else ())


def overview(study: Study) -> list[Chart]:
    """Figures of all labels together."""
    first = [search_chart(study), response_chart(study), plane_chart(study), course_chart(study)]
    return [chart for chart in first if chart is not None]


def figures_of(study: Study) -> list[Chart]:
    """All figures there are, those of single labels for the best one; keys are names for files."""
    best = _by_rank(study)[:1]
    return [*overview(study), *(chart for group in best for chart in detail_charts(group))]


def _by_rank(study: Study) -> list[Group]:
    ranked = study.ranked("average_accuracy")
    return [*ranked, *(group for group in study.groups if group not in ranked)]


def _details(study: Study) -> list[Section]:
    found = {shown(group.label): charts for group in _by_rank(study) if (charts := detail_charts(group))}
    if not found:
        return []
    kept, left = that_fit(found)
    best = next(iter(kept))
    order = {shown(group.label): kept[shown(group.label)] for group in study.groups if shown(group.label) in kept}
    text = "Accuracy of each task, loss, penalty, and where the importance sits."
    if left:
        text += f" The {len(kept)} labels with the highest accuracy; {left} more did not fit on the page."
    if len(order) > 1:
        text += " It begins with the one that ends highest."
    title = "One method at a time" if len(order) > 1 else "Task by task"
    return [Section("details", title, text, choices=order, chosen=best)]


def _settings_say(study: Study) -> str:
    keys = list(study.differing())
    told = ", ".join(keys[:3])
    return f"They differ in {told}" if len(keys) <= 3 else f"They differ in {told} and {len(keys) - 3} more"


def _about(study: Study) -> str:
    seeds = f"{study.seeds} seeds" if study.seeds > 1 else "one seed"
    runs = sum(len(group.runs) for group in study.groups)
    counted = f"{len(study.groups)} labels, {runs} runs, {seeds}" if len(study.groups) > 1 else seeds
    parts = [KINDS.get(study.kind, "Runs"), study.title, study.source, counted]
    return " · ".join(shown(part) for part in parts if part)


def _again(study: Study) -> Section:
    seconds = sum(run.seconds for group in study.groups for run in group.runs)
    took = f"All runs together took {_duration(seconds)} of training and evaluation"
    took += f", {_duration(study.wall_seconds)} from the first to the last." if study.wall_seconds else "."
    versions = ", ".join(f"{shown(name)} {shown(version)}" for name, version in study.versions.items())
    shared = shared_settings(study.groups)
    more = "\n".join(f"{shown(key)}: {value_text(value)}" for key, value in shared.items())
    return Section(
        "again", "To run it again", f"{took} Versions: {versions or 'not stored'}.", code=list(study.commands),
        more=more, more_title="All settings that are shared",
    )  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
