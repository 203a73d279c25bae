"""The page in a real browser: it renders, hovers, filters, prints, asks nothing of any network, and runs no one's code."""

import json
from pathlib import Path

import pytest

from report.runs import HOSTILE, comparison, run_folder
from rwalk.report import collect, study_page, write_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no /usr/bin/chromium")

MOST, READY = 6 * 2**20, 2.0


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A comparison with a hostile label, and two hundred runs."""
    folder = tmp_path_factory.mktemp("pages")
    few = {HOSTILE: {"keep": 0.5, "name": HOSTILE}, "ours": {"keep": 0.9}, "fine-tuning": {"method": "fine-tuning", "keep": 0.3}}
    comparison(folder / "few", few, seeds=3, against="ours")
    many = {f"rwalk.ewc_lambda={v}": {"rwalk": {"ewc_lambda": float(v)}, "keep": 0.9 - v / 100, "tasks": 5} for v in range(1, 41)}
    comparison(folder / "many", many, seeds=5)
    return {
        name: write_page(study_page(collect([folder / name])), folder / f"{name}.html") for name in ("few", "many")
    }  # fmt: skip


@pytest.fixture
def opened(browser, pages):
    """Opens a page; at the end nothing was asked for, and nothing complained."""
    asked, complaints, contexts = [], [], []

    def open_(name, **kwargs):
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **kwargs})
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        contexts.append(context)
        page.goto(pages[name].as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_
    for context in contexts:
        assert not context.pages[0].evaluate("window.hurt")
        context.close()
    assert complaints == []
    assert all(url in {page.as_uri() for page in pages.values()} for url in asked)


def test_every_figure_is_drawn(opened, pages):
    page = opened("few")
    page.evaluate("redraw(true)")
    kinds = page.evaluate("[...document.querySelectorAll('.plot')].map(plot => [drawn.get(plot).key, plot.data.length])")
    assert [key for key, _ in kinds][:4] == ["plane", "course", "matrix", "tasks"]
    assert {"loss", "penalty", "layers-fisher", "layers-score", "layers-importance"} <= {key for key, _ in kinds}
    assert all(count for _, count in kinds)
    assert pages["few"].stat().st_size <= MOST


def test_names_of_others_are_text(opened):
    page = opened("few")
    page.evaluate("redraw(true)")
    told = HOSTILE.replace("\x1b", "?")
    assert page.locator("#filter .labels span").first.text_content() == told
    assert page.locator("tbody th").first.text_content() == told
    assert page.evaluate("document.querySelectorAll('main b, main img').length") == 0
    names = page.evaluate("[...document.querySelectorAll('.plot svg text')].map(text => text.textContent)")
    assert any(name.startswith("</script><scri") for name in names)  # beside its point
    assert not any("49" == name or "{{7*7}}" not in name and "{7*7}" in name for name in names)


def test_hovering_tells_numbers(opened):
    page = opened("few")
    page.locator(".plot").first.scroll_into_view_if_needed()
    page.wait_for_selector(".plot .main-svg")
    where = page.evaluate("""() => {
        const plot = document.querySelector('.plot'), i = plot.data.findIndex(t => t.name === 'ours' && t.marker.size > 8);
        const x = plot._fullLayout.xaxis, y = plot._fullLayout.yaxis, box = plot.getBoundingClientRect();
        return [box.left + x._offset + x.d2p(plot.data[i].x[0]), box.top + y._offset + y.d2p(plot.data[i].y[0])];
    }""")
    page.mouse.move(*where)
    page.wait_for_selector(".hoverlayer .hovertext")
    assert "forgetting in points" in page.locator(".hoverlayer .hovertext").first.text_content()


def test_the_keyboard_goes_from_point_to_point(opened):
    page = opened("few")
    page.locator(".plot").nth(2).scroll_into_view_if_needed()
    page.wait_for_function("document.querySelectorAll('.plot')[2].data")
    page.locator(".plot").nth(2).focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#told").text_content()
    page.keyboard.press("ArrowRight")
    assert first.startswith("after task 1, tested on task 1: ")
    assert page.locator("#told").text_content().startswith("after task 1, tested on task 2: ")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") in ("SUMMARY", "A")


def test_labels_are_filtered_everywhere(opened):
    page = opened("few")
    page.evaluate("redraw(true)")
    page.fill("#search", "ours")
    assert page.locator("#count").text_content() == "1 of 3 shown"
    assert page.locator("#figures tbody tr:visible th").all_text_contents() == ["ours"]
    shown = "[...document.querySelectorAll('.plot')].slice(0, 2).flatMap(p => p.data.filter(t => t.visible !== false && t.meta.group).map(t => t.meta.group))"
    assert set(page.evaluate(shown)) == {"ours"}
    page.click("#all")
    assert page.locator("#figures tbody tr:visible th").count() == 5
    page.locator("#filter input[type=checkbox]").first.uncheck()
    assert HOSTILE.replace("\x1b", "?") not in page.evaluate(shown)


def test_one_label_after_the_other_is_shown(opened):
    page = opened("few")
    before = page.locator("#details figure h3").first.text_content()
    page.select_option("#choose-details", label="fine-tuning")
    assert page.locator("#details .chosen").text_content() == "fine-tuning"
    assert page.locator("#details figure h3").first.text_content() != before
    assert page.locator("#details [data-key=penalty]").count() == 1
    assert page.locator("#details [data-key=layers-fisher]").count() == 0  # it has no core


def test_dark_and_light(opened):
    page = opened("few", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    plane = "document.querySelector('.plot').layout.paper_bgcolor"
    page.locator(".plot").first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.plot').layout")
    assert (page.evaluate(ground), page.evaluate(plane)) == ("rgb(15, 19, 23)", "#0f1317")
    page.click("#theme")
    assert (page.evaluate(ground), page.evaluate(plane)) == ("rgb(255, 255, 255)", "#fff")


def test_a_phone_scrolls_one_way(opened):
    page = opened("few", viewport={"width": 360, "height": 740})
    page.evaluate("redraw(true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("[...document.querySelectorAll('.plot')].every(p => p._fullLayout.width <= 344)")


def test_it_prints(opened, tmp_path):
    page = opened("few", color_scheme="dark")
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    content = (tmp_path / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") + content.count(b"/Type /Page/") >= 3
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"  # as it was


def test_two_hundred_runs_open_at_once(opened, pages, browser):
    assert pages["many"].stat().st_size <= MOST
    session = browser.new_context().new_page().context
    page = session.pages[0]
    client = session.new_cdp_session(page)
    client.send("Performance.enable", {"timeDomain": "threadTicks"})  # of the processor: other work does not count
    page.goto(pages["many"].as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    page.wait_for_function("document.querySelector('.plot').data")
    found = {entry["name"]: entry["value"] for entry in client.send("Performance.getMetrics")["metrics"]}
    session.close()
    assert found["TaskDuration"] < READY, json.dumps(found)
    page = opened("many")
    assert page.locator("#filter input[type=checkbox]").count() == 40
    assert page.locator("#response .plot").count() == 1
