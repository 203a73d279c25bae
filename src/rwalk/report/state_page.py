"""A state file as a page: which layers are held, what plasticity is left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rwalk.report.charts import Chart, Series
from rwalk.report.page import Page, Section
from rwalk.report.study import shown
from rwalk.report.tables import Line, Table, value_text

__all__ = ["state_charts", "state_page"]

ROWS = 25  # layers in a figure
KINDS = ("importance", "fisher", "score", "anchor")
HOLDING = (
    "A weight is held from a tenth of the largest importance on, and free below a hundredth. Importance is saturated "
    "on weights that have nine tenths of the largest: they are held as tightly as any."
)


def state_page(found: Mapping[str, Any]) -> Page:
    """A page of what ``summarize_state`` found."""
    layers, whole = _layers_and_whole(found)
    sections = [Section(chart.key, chart.title, charts=[chart]) for chart in state_charts(found)]
    sections.append(Section("layers", "Layer by layer", HOLDING, tables=[_layers(layers, whole)]))
    norms = "Euclidean norms of what is kept."
    sections.append(Section("parameters", "Parameter by parameter", norms, tables=[_parameters(found)]))
    settings = [Line([shown(key), value_text(value)]) for key, value in found["config"].items()]
    config = Table(["setting", "value"], settings, words=True)
    sections.append(Section("settings", "Settings it was saved with", tables=[config]))
    about = (
        f"{shown(Path(found['path']).name)} · schema {found['schema']}{', compact' if found['compact'] else ''} · "
        f"{'every byte verified' if found['verified'] else 'no checksums'} · {found['bytes']:,} bytes · "
        f"{found['elements']:,} parameters · {found['steps']:,} steps"
    )
    facts = [
        ("tasks", str(found["tasks"])),
        ("of the weights are held", _share(whole["held"])),
        ("are free: the plasticity left", _share(whole["free"])),
        ("of the importance is saturated", _share(whole["saturated"])),
        ("from the anchors, over their norm", _ratio(whole["drift"])),
    ]
    return Page(_says(layers, whole), about, sections, facts=facts, warnings=[shown(w, 400) for w in found["warnings"]])


def state_charts(found: Mapping[str, Any]) -> list[Chart]:
    """Its figures; none before the first task's end."""
    layers, whole = _layers_and_whole(found)
    known = {name: row for name, row in layers.items() if row["share"] is not None}
    if not known or not whole["share"]:
        return []
    ranked = sorted(known, key=lambda name: -known[name]["share"])[:ROWS]
    names = [shown(name, 60) for name in ranked]
    left = f" The {len(known) - len(ranked)} lightest layers are left out." if len(known) > len(ranked) else ""
    weights = [100 * known[name]["weights"] / max(1, whole["weights"]) for name in ranked]
    importance = [100 * known[name]["share"] for name in ranked]
    heaviest = f"Layer {names[0]} carries {importance[0]:.0f} % of the importance on {weights[0]:.0f} % of the weights"
    held, free = ([100 * known[name][key] for name in ranked] for key in ("held", "free"))
    between = [max(0.0, 100 - h - f) for h, f in zip(held, free, strict=True)]
    tight = max(range(len(ranked)), key=held.__getitem__)
    where = [
        Series("share of all importance", names, importance, 0, kind="bar"),
        Series("share of all weights", names, weights, 7, kind="bar"),
    ]
    parts = [
        Series("held", names, held, 0, kind="bar"), Series("in between", names, between, 7, kind="bar"),
        Series("free", names, free, 4, kind="bar"),
    ]  # fmt: skip
    first = f"A layer whose first bar is the longer one is held more than others.{left}"
    free_says = f"{100 * whole['free']:.0f} % of the weights are free; "
    free_says += f"layer {names[tight]} is held most ({held[tight]:.0f} %)"
    note = f"Share of each layer's weights in %. {HOLDING}{left}"
    charts = [
        Chart("importance", heaviest, first, "layer", "%", where),
        Chart("plasticity", free_says, note, "layer", "% of the layer's weights", parts, stacked=True),
    ]
    drift = [known[name]["drift"] for name in ranked]
    if any(drift):
        far = max(range(len(ranked)), key=lambda place: drift[place] or 0.0)
        note = "Distance of the weights from their anchors, over the anchors' norm, in %."
        if not found["with_weights"]:
            note += " The state does not hold the weights: this is where the open window began; --weights tells more."
        bars = [Series("distance", names, [None if d is None else 100 * d for d in drift], 1, kind="bar")]
        says = f"Layer {names[far]} has moved furthest from its anchor"
        charts.append(Chart("distance", says, note, "layer", "% of the norm", bars))
    return charts


def _layers_and_whole(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    layers = dict(found["held_layers"])
    whole = layers.pop("")
    return layers, whole


def _says(layers: Mapping[str, Mapping[str, Any]], whole: Mapping[str, Any]) -> str:
    if not whole["share"]:
        return "Nothing is protected yet"
    held = [name for name, row in layers.items() if (row["held"] or 0.0) >= 0.1]
    told = f"{100 * whole['held']:.1f} % of the weights are held, {100 * whole['free']:.0f} % are free to learn"
    return f"{told}; {len(held)} of {len(layers)} layers are held in a tenth of their weights or more"


def _layers(layers: Mapping[str, Mapping[str, Any]], whole: Mapping[str, Any]) -> Table:
    head = ["layer", "weights", "share of importance", "held", "free", "saturated", "distance", "over norm"]
    rows = []
    for name, row in [*layers.items(), ("", whole)]:
        shares = [_share(row[key]) for key in ("share", "held", "free", "saturated")]
        distance = "–" if row["distance"] is None else f"{row['distance']:.3g}"
        cells = [shown(name) if name else "all", f"{row['weights']:,}", *shares, distance, _ratio(row["drift"])]
        rows.append(Line(cells, best=not name))
    return Table(head, rows)


def _parameters(found: Mapping[str, Any]) -> Table:
    rows = []
    for name, entry in found["parameters"].items():
        norms = [f"{entry['norms'][kind]:.3g}" if kind in entry["norms"] else "–" for kind in KINDS]
        rows.append(Line([shown(name), "×".join(map(str, entry["shape"])) or "1", _share(entry["share"]), *norms]))
    return Table(["parameter", "shape", "share", *(f"‖{kind}‖" for kind in KINDS)], rows)


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2g} %"
