"""The page in a real browser: it renders, hovers, filters, prints, asks nothing of any network, runs no one's code."""

import os
from pathlib import Path

import pytest

from report.runs import HOSTILE, comparison, result
from rwalk.experiments.recording import Record
from rwalk.report import Group, Run, Study, collect, study_page, write_page

get_plotlyjs = pytest.importorskip("plotly.offline", reason="plotly is not installed").get_plotlyjs
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path(os.environ.get("CHROMIUM") or "/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}; CHROMIUM names one")

#: Bytes of a page; seconds until there is something to read; seconds of the processor beside those of Plotly's start.
MOST, READY, OUR_PART = 6 * 2**20, 2.0, 1.0


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page of a comparison with a hostile label, layers and all."""
    folder = tmp_path_factory.mktemp("page")
    labels = {
        HOSTILE: {"keep": 0.5, "name": HOSTILE},
        "ours": {"keep": 0.9},
        "theirs": {"method": "fine-tuning", "keep": 0.3},
        "x" * 150: {"keep": 0.7},
    }
    comparison(folder / "runs", labels, seeds=3, against="ours")
    return write_page(study_page(collect([folder / "runs"])), folder / "page.html")


@pytest.fixture(scope="module")
def opened(browser, file):
    """The page, opened once. At the end nothing was asked for, no one's code has run, and nothing complained."""
    asked, complaints = [], []
    page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme="light")
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    page.evaluate("redraw(true)")
    yield page
    assert not page.evaluate("window.hurt")
    assert complaints == []
    assert asked == [file.as_uri()]


@pytest.fixture
def page(opened):
    """As it is at first, all figures drawn."""
    opened.set_viewport_size({"width": 1100, "height": 900})
    opened.emulate_media(color_scheme="light")
    opened.locator("#search").evaluate("search => { search.value = '' }")
    opened.evaluate(
        "document.querySelectorAll('#filter input[type=checkbox]').forEach(box => { box.checked = true; }); filter()"
    )
    return opened


def test_every_figure_is_drawn(page, file):
    kinds = page.evaluate(
        "[...document.querySelectorAll('.plot')].map(plot => [drawn.get(plot).key, plot.data.length])"
    )
    assert [key for key, _ in kinds][:4] == ["plane", "course", "matrix", "tasks"]
    assert {"loss", "penalty", "layers-fisher", "layers-score", "layers-importance"} <= {key for key, _ in kinds}
    assert all(count for _, count in kinds)
    assert file.stat().st_size <= MOST


def test_names_of_others_are_text(page):
    told = HOSTILE.replace("\x1b", "?")
    assert page.locator("#filter .labels span").first.text_content() == told
    assert page.locator("tbody th").first.text_content() == told
    assert page.evaluate("document.querySelectorAll('main b, main img').length") == 0
    names = page.evaluate("[...document.querySelectorAll('.plot svg text')].map(text => text.textContent)")
    assert any(name.startswith("</script><scri") for name in names)  # beside its point
    assert not any(name == "49" or ("{{7*7}}" not in name and "{7*7}" in name) for name in names)


def test_hovering_tells_numbers(page):
    page.locator(".plot").first.scroll_into_view_if_needed()
    where = page.evaluate("""() => {
        const plot = document.querySelector('.plot');
        const i = plot.data.findIndex(t => t.name === 'ours' && t.marker.size > 8);
        const x = plot._fullLayout.xaxis, y = plot._fullLayout.yaxis, box = plot.getBoundingClientRect();
        return [box.left + x._offset + x.d2p(plot.data[i].x[0]), box.top + y._offset + y.d2p(plot.data[i].y[0])];
    }""")
    page.mouse.move(*where)
    page.wait_for_selector(".hoverlayer .hovertext")
    assert "forgetting in points" in page.locator(".hoverlayer .hovertext").first.text_content()


def test_the_keyboard_goes_from_point_to_point(page):
    page.locator(".plot").nth(2).scroll_into_view_if_needed()
    page.locator(".plot").nth(2).focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#told").text_content()
    page.keyboard.press("ArrowRight")
    assert first.startswith("after task 1, tested on task 1: ")
    assert page.locator("#told").text_content().startswith("after task 1, tested on task 2: ")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement !== document.querySelectorAll('.plot')[2]")


def test_labels_are_filtered_everywhere(page):
    page.fill("#search", "ours")
    assert page.locator("#count").text_content() == "1 of 4 shown"
    assert page.locator("#figures tbody tr:visible th").all_text_contents() == ["ours"]
    shown = """[...document.querySelectorAll('.plot')].slice(0, 2).flatMap(plot =>
        plot.data.filter(trace => trace.visible !== false && trace.meta.group).map(trace => trace.meta.group))"""
    assert set(page.evaluate(shown)) == {"ours"}
    page.click("#all")
    assert page.locator("#figures tbody tr:visible th").count() == 7
    page.locator("#filter input[type=checkbox]").first.uncheck()
    assert HOSTILE.replace("\x1b", "?") not in page.evaluate(shown)


def test_one_label_after_the_other_is_shown(page):
    before = page.locator("#details figure h3").first.text_content()
    page.select_option("#choose-details", label="theirs")
    assert page.locator("#details .chosen").text_content() == "theirs"
    assert page.locator("#details figure h3").first.text_content() != before
    assert page.locator("#details [data-key=penalty]").count() == 1
    assert page.locator("#details [data-key=layers-fisher]").count() == 0  # it has no core


def test_dark_and_light(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    plane = "document.querySelector('.plot').layout.paper_bgcolor"
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-theme=dark]")  # told of it with the next frame
    assert (page.evaluate(ground), page.evaluate(plane)) == ("rgb(15, 19, 23)", "#0f1317")
    page.click("#theme")
    assert (page.evaluate(ground), page.evaluate(plane)) == ("rgb(255, 255, 255)", "#fff")


def test_a_phone_scrolls_one_way(page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.evaluate("redraw(true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("[...document.querySelectorAll('.plot')].every(p => p._fullLayout.width <= 344)")


def test_it_prints_on_white(page, tmp_path):
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-theme=dark]")
    page.evaluate(
        "addEventListener('beforeprint', () => { window.printed = drawn.keys().next().value.layout.paper_bgcolor })"
    )
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert page.evaluate("window.printed") == "#fff"
    page.wait_for_selector("html[data-theme=dark]")  # as it was


def test_a_system_that_turns_dark_while_a_page_prints_leaves_the_paper_white(page):
    page.emulate_media(color_scheme="light")
    page.wait_for_selector("html[data-theme=light]")
    page.evaluate(
        "() => { system.addEventListener('change', e => { root.dataset.turned = e.matches ? 'dark' : 'light' }) }"
    )
    page.evaluate("() => { dispatchEvent(new Event('beforeprint')) }")
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-turned=dark]")
    assert page.evaluate("root.dataset.theme") == "light"
    page.evaluate("() => { dispatchEvent(new Event('afterprint')) }")
    page.emulate_media(color_scheme="light")
    page.wait_for_selector("html[data-turned=light]")
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-theme=dark]")  # outside of printing it is followed


def measured(browser, file):
    """A page once it is ready, and the seconds of the processor that it took: other work does not count."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    found = {entry["name"]: entry["value"] for entry in client.send("Performance.getMetrics")["metrics"]}
    return page, found["TaskDuration"]


def test_two_hundred_runs_open_at_once(browser, tmp_path):
    groups = []
    for strength in range(1, 41):
        found = result(keep=0.9 - strength / 100, tasks=5, rwalk={"ewc_lambda": float(strength)})
        record = Record(**found.record)
        runs = [Run(seed, found.metrics, 1.0, found.matrix.tolist(), record) for seed in range(5)]
        groups.append(Group(f"λ={strength}", found.spec.canonical(), runs))
    file = write_page(study_page(Study("runs", "many", groups)), tmp_path / "many.html")
    assert file.stat().st_size <= MOST
    page, thread = measured(browser, file)
    bare = tmp_path / "bare.html"
    bare.write_text(
        f"<!DOCTYPE html><html data-ready><meta charset=utf-8><body><script>{get_plotlyjs()}</script>", encoding="utf-8"
    )
    empty, of_plotly = measured(browser, bare)
    empty.close()
    assert thread < of_plotly + OUR_PART
    assert page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") < 1000 * READY
    assert page.locator("#filter input[type=checkbox]").count() == 40
    assert page.locator("#response .plot").count() == 1
    drawn = "[...document.querySelectorAll('.plot')].filter(plot => plot.querySelector('.main-svg')).length"
    assert page.evaluate(drawn) < page.locator(".plot").count()  # what is far away waits
    page.locator("#response .plot").scroll_into_view_if_needed()
    page.wait_for_selector("#response .plot .main-svg")
    page.pdf(path=tmp_path / "many.pdf", format="A4")  # on paper all are there
    assert page.evaluate(drawn) == page.locator(".plot").count()
    page.close()
