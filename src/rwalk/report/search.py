"""λ looked for while a stream comes: the accuracy after each task under each λ that was tried."""

from __future__ import annotations

from statistics import mean

from rwalk.report.charts import Chart, Series
from rwalk.report.study import Study

__all__ = ["search_chart"]


def search_chart(study: Study) -> Chart | None:
    """Accuracy on the task at hand against λ, a line a task, means over seeds; None without a search."""
    tasks = max((len(search.trials) for search in study.searches), default=0)
    series = []
    for task in range(tasks):
        tried: dict[float, list[float]] = {}
        for search in study.searches:
            for strength, accuracy in search.trials[task] if task < len(search.trials) else ():
                if strength > 0:
                    tried.setdefault(strength, []).append(100 * accuracy)
        if tried:
            x = sorted(tried)
            y = [mean(tried[strength]) for strength in x]
            series.append(Series(f"task {task + 1}", x, y, task / max(1, tasks - 1), direct=f"task {task + 1}"))
    if not series:
        return None
    if not any(search.plasticity for search in study.searches):
        title = f"{study.best} is among the best after each task"
        note = (
            "Mean accuracy over the tasks so far, on held-out data of the last one and kept samples of those before, "
            "for each λ that was still in the race; neither later tasks nor test data were looked at. Means over seeds."
        )
        return Chart("search", title, note, "λ", "accuracy so far in %", series, log_x=True, ordered=True)
    title = f"{study.best} is the strongest that every task could be learned under"
    note = (
        "Accuracy on held-out data of the task at hand, for each λ that was tried, from the strongest down until it "
        "was learned well enough; neither later tasks nor test data were looked at. Means over seeds."
    )
    return Chart("search", title, note, "λ", "accuracy on the task at hand in %", series, log_x=True, ordered=True)
