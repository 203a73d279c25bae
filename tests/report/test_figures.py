"""What figures and sentences say, beside the numbers that they come from."""

import math
from dataclasses import replace
from importlib.resources import files
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.runs import comparison, result, run_folder
from rwalk.report import collect, figures_of
from rwalk.report.drawing import DARK, LIGHT, draw
from rwalk.report.findings import evidence, headline
from rwalk.report.overview import averages
from rwalk.report.placing import HIGH, WIDE, Spot, place
from rwalk.report.tables import difference_table, summary_table


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    labels = {"weak": {"method": "fine-tuning", "keep": 0.4}, "strong": {"keep": 0.9}}
    return collect([comparison(tmp_path_factory.mktemp("study"), labels, seeds=3)])


def chart(study, key):
    return next(chart for chart in figures_of(study) if chart.key == key)


def test_the_plane_has_means_seeds_and_intervals(study):
    plane = chart(study, "plane")
    found = [result(seed=seed, keep=0.9).metrics for seed in range(3)]
    forgetting = [100 * metrics["forgetting"] for metrics in found]
    seeds = next(series for series in plane.series if series.name == "strong, seeds")
    middle = next(series for series in plane.series if series.name == "strong")
    assert list(seeds.x) == pytest.approx(forgetting)
    assert middle.x[0] == pytest.approx(mean(forgetting))
    assert middle.x_half[0] == pytest.approx(4.302653 * stdev(forgetting) / math.sqrt(3))
    assert middle.direct == "strong"
    assert plane.title.startswith("strong forgets least")


def test_two_seeds_have_no_interval(tmp_path):
    two = chart(collect([comparison(tmp_path, {"a": {}, "b": {"keep": 0.5}}, seeds=2)]), "plane")
    assert all(series.x_half in (None, [None]) for series in two.series)


def test_the_course_is_the_mean_over_tasks_seen(study):
    course = chart(study, "course")
    matrices = [result(seed=seed, keep=0.9).matrix.tolist() for seed in range(3)]
    line = next(series for series in course.series if series.name == "strong")
    for i in range(3):
        values = [100 * mean(matrix[i][: i + 1]) for matrix in matrices]
        assert line.y[i] == pytest.approx(mean(values))
        assert (line.low[i], line.high[i]) == pytest.approx((min(values), max(values)))
    assert averages([[0.5, None], [None, 0.5]]) == [0.5]


def test_matrix_and_tasks_are_means_over_seeds(study):
    matrices = [result(seed=seed, keep=0.9).matrix.tolist() for seed in range(3)]
    heat = chart(study, "matrix").heat
    assert heat.values[2][0] == pytest.approx(100 * mean(matrix[2][0] for matrix in matrices))
    second = chart(study, "tasks").series[1]
    assert list(second.x) == [2, 3]
    assert second.y[1] == pytest.approx(100 * mean(matrix[2][1] for matrix in matrices))
    told = f"Task 1 was learned to {heat.values[0][0]:.0f} % and is down to {heat.values[2][0]:.0f} % at the end"
    assert chart(study, "matrix").title == told


def test_colours_are_fractions_where_they_are_ordered(study):
    figures = {figure.key: figure for figure in figures_of(study)}
    for figure in figures.values():
        assert {type(series.colour) for series in figure.series} <= {float if figure.ordered else int}
    assert figures["tasks"].ordered
    assert figures["tasks"].plain()["ordered"] is True


def test_layers_loss_and_penalty_are_those_recorded(study):
    fisher = chart(study, "layers-fisher").heat
    assert (list(fisher.rows), list(fisher.columns)) == (["fc0", "fc1"], ["1", "2", "3"])
    assert fisher.values[0] == pytest.approx([50.0, 60.0, 70.0])
    assert chart(study, "layers-fisher").title == "Fisher part: layer fc0 carries 70 %, after the first task 50 %"
    loss = chart(study, "loss").series[0]
    assert list(loss.x[:3]) == [0.5, 1.0, 1.0]
    assert [value for value in loss.y if value is not None] == pytest.approx([2.0, 0.5, 1.9, 0.5, 1.8, 0.5])
    assert chart(study, "penalty").title.startswith("The penalty is largest, 0.3, while task 2")


def test_the_response_is_drawn_against_what_was_tried(tmp_path):
    keeps = {0.1: 0.4, 1.0: 0.9, 10.0: 0.6}
    labels = {
        f"rwalk.ewc_lambda={v}": {"rwalk": {"ewc_lambda": v}, "keep": k, "validation": 0.1} for v, k in keeps.items()
    }
    response = chart(collect([comparison(tmp_path, labels, 2, "rwalk.ewc_lambda=1.0", "tuning.json")]), "response")
    line = response.series[0]
    assert list(line.x) == [0.1, 1.0, 10.0]
    for place_, keep in enumerate(keeps.values()):
        expected = [100 * result(seed=seed, keep=keep).metrics["average_accuracy"] for seed in (0, 1)]
        assert line.y[place_] == pytest.approx(mean(expected))
    assert response.log_x
    assert response.title.startswith("Average accuracy is highest at λ = 1 (")
    assert "held out" in response.note


def test_strengths_of_all_methods_share_an_axis(tmp_path):
    for strength, keep in ((1.0, 0.5), (3.0, 0.9), (9.0, 0.7)):
        run_folder(tmp_path / f"a{strength}", rwalk={"ewc_lambda": strength}, keep=keep)
        run_folder(tmp_path / f"b{strength}", method="mas", options={"strength": strength}, keep=keep - 0.1)
    response = chart(collect([tmp_path]), "response")
    assert response.title.startswith("Average accuracy is highest with rwalk at λ = 3 (")
    assert {series.name: list(series.x) for series in response.series} == {
        "rwalk": [1.0, 3.0, 9.0],
        "mas": [1.0, 3.0, 9.0],
    }


def test_a_best_value_at_the_end_of_the_grid_is_told(tmp_path):
    for strength, keep in ((1.0, 0.5), (3.0, 0.9)):
        run_folder(tmp_path / str(strength), rwalk={"ewc_lambda": strength}, keep=keep)
    response = chart(collect([tmp_path]), "response")
    assert "the end of what was tried" in response.title
    assert "test data" in response.note


def test_a_lead_that_is_chance_is_called_so(tmp_path):
    close = collect([comparison(tmp_path / "close", {"a": {"keep": 0.8}, "b": {"keep": 0.801}}, seeds=3)])
    assert "not told apart" in headline(close)
    assert "includes 0" in evidence(close)
    far = collect([comparison(tmp_path / "far", {"a": {"keep": 0.9}, "b": {"keep": 0.4}}, seeds=3)])
    assert headline(far).startswith("a ends highest: ")
    assert ", before b (" in headline(far)
    one = collect([comparison(tmp_path / "one", {"a": {"keep": 0.9}, "b": {"keep": 0.4}}, seeds=1)])
    assert "One seed only" in evidence(one)
    assert "one seed, so the differences may be chance" in difference_table(one).caption
    assert "95 % confidence interval" in difference_table(far).caption


def test_labels_that_end_equally_high_are_not_ranked(tmp_path):
    study = collect([comparison(tmp_path, {"a": {"keep": 0.9}, "b": {"keep": 0.9}}, seeds=1)])
    assert headline(study).startswith("a ends as high as b: ")


def test_labels_are_ranked_within_their_benchmark(tmp_path):
    study = collect([comparison(tmp_path, {"a": {"keep": 0.9}, "b": {"keep": 0.5}, "c": {"keep": 0.4}}, seeds=2)])
    other = {**study.groups[2].config, "benchmark": "permuted-digits"}
    groups = [*study.groups[:2], replace(study.groups[2], config=other)]
    both = replace(study, groups=groups)
    first, second = headline(both).split("; ")
    assert first.startswith("split-digits: a ends highest: ")
    assert ", before b (" in first
    assert second.startswith("permuted-digits: c ends at ")
    assert evidence(both) == "Labels are ranked within their benchmark."
    assert [row.best for row in summary_table(both).rows] == [True, False, False]
    for key in ("plane", "course"):
        assert "a" in chart(study, key).title.split()
        assert chart(both, key).title.endswith(", on several benchmarks: compare within one")


def test_what_learns_everything_at_once_is_no_winner(tmp_path):
    labels = {"joint": {"method": "joint", "keep": 1.0}, "ours": {"keep": 0.8}}
    assert headline(collect([comparison(tmp_path, labels)])).startswith("ours ends highest")


@pytest.mark.parametrize("key", ["plane", "tasks", "matrix"])
def test_pictures_are_the_same_each_time(study, key, tmp_path):
    one = draw(chart(study, key), tmp_path / "one.svg").read_bytes()
    assert one == draw(chart(study, key), tmp_path / "two.svg").read_bytes()
    if key == "plane":
        assert b">strong<" in one


spots = st.lists(
    st.builds(Spot, st.floats(0, 400), st.floats(0, 250), st.text("abc", min_size=1, max_size=20)), max_size=12
)


@given(spots, st.booleans())
def test_names_never_lie_on_each_other(found, beside):
    boxes = []
    for spot, shift in zip(found, place(found, (400, 250), beside=beside), strict=True):
        if shift is not None:
            left, middle = spot.x + shift[0], spot.y + shift[1]
            boxes.append((left, left + WIDE * len(spot.text), middle - HIGH / 2, middle + HIGH / 2))
            assert beside or (left >= 0 and boxes[-1][1] <= 400)
    for i, a in enumerate(boxes):
        assert not any(a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3] for b in boxes[:i])


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return linear, 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def times(matrix, values):
    return [sum(m * v for m, v in zip(row, values, strict=True)) for row in matrix]


def oklab(linear):
    """Where a colour lies among those that look alike (Ottosson 2020)."""
    to_lms = ((0.4122, 0.5363, 0.0514), (0.2119, 0.6807, 0.1074), (0.0883, 0.2817, 0.6300))
    to_lab = ((0.2105, 0.7936, -0.0041), (1.9780, -2.4286, 0.4506), (0.0259, 0.7828, -0.8087))
    return times(to_lab, [max(0.0, value) ** (1 / 3) for value in times(to_lms, linear)])


#: What the colour-blind see, linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
SEEN = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}  # fmt: skip


@pytest.mark.parametrize(("palette", "ground"), [(LIGHT, "#ffffff"), (DARK, "#0f1317")])
def test_colours_are_read_by_everyone(palette, ground):
    """Names in these colours have the contrast of text; the first six are told apart by the colour-blind."""
    _, behind = luminance(ground)
    for colour in palette:
        light, dark = sorted((luminance(colour)[1], behind), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour
    for kind, matrix in SEEN.items():
        seen = [oklab(times(matrix, luminance(colour)[0])) for colour in palette[:6]]
        assert min(math.dist(a, b) for i, a in enumerate(seen) for b in seen[:i]) > 0.09, kind
    script = (files("rwalk.report") / "templates" / "chart.js").read_text()
    assert ", ".join(f'"{colour}"' for colour in palette) in script  # the page's are the same
