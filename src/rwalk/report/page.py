"""The page: sections, figures and tables put together, and written as one file that asks nothing of any network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from rwalk import __version__
from rwalk.errors import MissingExtraError
from rwalk.experiments.writing import writing_whole
from rwalk.report.charts import Chart
from rwalk.report.tables import Table

__all__ = ["Page", "Section", "render", "write_page"]

#: Bytes of figures of single labels on a page: Plotly has 4.8 MB, and the page shall have no more than 6.
ROOM = 800_000
SCRIPTS = ("chart.js", "layout.js", "page.js")


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        key: Its anchor.
        title: What it says, as a sentence.
        text: What it is about.
        charts: Its figures.
        tables: Its tables.
        choices: Figures of which one label's are shown at a time.
        chosen: Whose at first.
        code: Commands.
        remarks: Remarks.
        more: Text to unfold.
        more_title: What it is.
    """

    key: str
    title: str
    text: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    choices: Mapping[str, Sequence[Chart]] = field(default_factory=dict)
    chosen: str | None = None
    code: Sequence[str] = ()
    remarks: Sequence[str] = ()
    more: str = ""
    more_title: str = ""


@dataclass(frozen=True)
class Page:
    """What is on a page.

    Attributes:
        title: The finding.
        about: What it was found in.
        sections: From the top.
        labels: That a reader may show or hide.
        facts: Names and values that stand out.
        warnings: Sentences that must not be missed.
    """

    title: str
    about: str
    sections: Sequence[Section]
    labels: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()


def render(page: Page) -> str:
    """The page as HTML. Whatever names hold is text in it.

    Raises:
        MissingExtraError: plotly or jinja2 is not installed.
    """
    try:
        from jinja2 import Environment
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("a report page", "report", error) from error
    folder = files("rwalk.report") / "templates"
    charts: list[Chart] = []
    sections = []
    for section in page.sections:
        places = list(range(len(charts), len(charts) + len(section.charts)))
        charts += section.charts
        sections.append({**vars(section), "charts": places, "choices": list(section.choices)})
    data = {
        "labels": list(page.labels),
        "charts": [chart.plain() for chart in charts],
        "sections": {
            section.key: {
                "choices": [
                    {"label": label, "charts": [chart.plain() for chart in own]}
                    for label, own in section.choices.items()
                ]
            }
            for section in page.sections
            if section.choices
        },
    }
    text = {name: (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", *SCRIPTS)}
    template = Environment(autoescape=True, trim_blocks=True).from_string(text["page.html"])
    return template.render(
        page={**vars(page), "sections": sections},
        version=__version__,
        css=Markup(text["page.css"]),
        script=Markup("".join(text[name] for name in SCRIPTS)),
        plotly=Markup(get_plotlyjs()),
        data=Markup(as_script(data)),
    )


def as_script(data: Any) -> str:
    """JSON that no part of can end the script element it stands in, nor a line where JavaScript sees one."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def write_page(page: Page, target: Path) -> Path:
    """Write a page, whole or not at all, making its folder if need be.

    Raises:
        MissingExtraError: plotly or jinja2 is not installed.
        OSError: It cannot be written.
    """
    content = render(page).encode()
    with writing_whole(target) as file:
        file.write(content)
    return target


def that_fit(choices: Mapping[str, Sequence[Chart]]) -> tuple[dict[str, Sequence[Chart]], int]:
    """The first of these, as many as there is room for, and how many are left out."""
    room, kept = ROOM, dict[str, Sequence[Chart]]()
    for label, charts in choices.items():
        room -= len(as_script([chart.plain() for chart in charts]).encode())
        if room < 0 and kept:
            break
        kept[label] = charts
    return kept, len(choices) - len(kept)
