"use strict";
// A figure's data (charts.py) as Plotly draws it. Names come from files: they are escaped, and never part of a template.
const LIGHT = ["#0072b2", "#c04e00", "#59432d", "#bf0080", "#541773", "#7900f2", "#00805f", "#5f6670"];
const DARK = ["#56b4e9", "#f0863a", "#f2f230", "#f200a2", "#a455f2", "#55f2d8", "#8fd14f", "#b4bcc6"];
const SIGNS = ["circle", "square", "diamond", "triangle-up", "star", "x", "hexagon", "triangle-down"];
const SCALES = {
  light: ["#f7fbff", "#d6e6f4", "#abcfe6", "#6aaed6", "#3787c0", "#105ba4", "#08306b"],
  dark: ["#11202f", "#15395b", "#1d5684", "#2f78ad", "#569ccb", "#92c3e4", "#d8ecfa"],
};
const ORDER = { light: ["#440154", "#414487", "#2a788e", "#1f8a70", "#8a7d00"], dark: ["#b48ae0", "#8fa2f0", "#45b4c4", "#4fd08a", "#f2e24a"] };
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const theme = () => document.documentElement.dataset.theme;
const esc = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const cut = (text, most) => (text = String(text), text.length > most ? text.slice(0, most - 1) + "…" : text);
const num = value => value == null ? "–" : typeof value === "number" ? String(+value.toPrecision(4)) : String(value);
function mixed(stops, part) {
  const at = part * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(at)), f = at - i;
  const rgb = hex => [1, 3, 5].map(k => parseInt(hex.slice(k, k + 2), 16));
  const [a, b] = [rgb(stops[i]), rgb(stops[i + 1])];
  return "#" + a.map((v, k) => Math.round(v + f * (b[k] - v)).toString(16).padStart(2, "0")).join("");
}
function ink(hex) { // what is read best on it
  const [r, g, b] = [1, 3, 5].map(k => (parseInt(hex.slice(k, k + 2), 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#0b1a2a" : "#ffffff";
}
function colour(c, ordered) {
  if (c == null) return css("--soft");
  return ordered ? mixed(ORDER[theme()], c) : (theme() === "dark" ? DARK : LIGHT)[c % LIGHT.length];
}
const sign = c => SIGNS[(Math.floor((c || 0) / SIGNS.length) + (c || 0)) % SIGNS.length];

function traces(chart) {
  const found = [], ordered = chart.ordered;
  for (const s of chart.series) {
    const own = colour(s.colour, ordered), x = s.x, y = s.y, name = esc(s.name);
    const told = x.map((v, i) => s.text ? esc(s.text[i]) : `${name}<br>${esc(chart.x)}: ${esc(num(v))}<br>${esc(chart.y)}: ${esc(num(y[i]))}`);
    const base = { x, y, name, type: "scatter", hoverinfo: "text", hovertext: told, meta: { group: s.group ?? null, of: s } };
    const bars = half => half && half.some(v => v != null) ? { type: "data", array: half, color: own, thickness: 1.6, width: 4 } : undefined;
    if (s.kind === "bar") {
      found.push({ ...base, type: "bar", orientation: "h", x: y, y: x.map(v => esc(cut(v, 34))), marker: { color: own }, text: y.map(v => v == null ? "" : String(+v.toPrecision(3))), textposition: chart.stacked ? "none" : "outside", cliponaxis: false });
    } else if (s.kind === "points") {
      found.push({ ...base, mode: "markers", marker: { color: own, symbol: sign(s.colour), size: 6, opacity: 0.4 } });
    } else if (s.kind === "mean") {
      found.push({ ...base, mode: "markers", marker: { color: own, symbol: sign(s.colour), size: 12 }, error_x: bars(s.x_half), error_y: bars(s.y_half) });
    } else if (s.kind === "published") {
      found.push({ ...base, mode: "markers", marker: { color: own, symbol: sign(s.colour) + "-open", size: 11, line: { width: 2 } } });
    } else {
      if (s.low) found.push({ x: [...x, ...[...x].reverse()], y: [...s.high, ...[...s.low].reverse()], type: "scatter", mode: "lines", line: { width: 0 }, fill: "toself", fillcolor: own + "28", hoverinfo: "skip", meta: { group: s.group ?? null } });
      const few = x.filter(v => v != null).length <= 25;
      found.push({ ...base, mode: few ? "lines+markers" : "lines", line: { color: own, width: 2.2, dash: s.dashed ? "dash" : "solid" }, marker: { symbol: ordered ? "circle" : sign(s.colour), size: 7 } });
    }
  }
  return found;
}

function heat(chart, width) {
  const h = chart.heat, rows = h.rows.map(r => esc(cut(r, width < 500 ? 16 : 30)) ), columns = h.columns.map(esc);
  const top = h.most || Math.max(1, ...h.values.flat().filter(v => v != null)), stops = SCALES[theme()];
  const told = h.values.map((row, i) => row.map((v, k) => `${esc(h.row)} ${esc(h.rows[i])}, ${esc(h.column)} ${columns[k]}: ${v == null ? "–" : num(v) + " %"}`));
  const size = Math.min(12, (width - 120) / columns.length / 2.6), notes = [];
  if (size >= 7) h.values.forEach((row, i) => row.forEach((v, k) => {
    if (v != null) notes.push({ x: k, y: i, text: v >= 99.95 ? "100" : v.toFixed(v < 10 ? 1 : 0), showarrow: false, font: { size, color: ink(mixed(stops, Math.min(1, Math.max(0, v / top)))) } });
  }));
  const names = at => ({ tickmode: "array", tickvals: at.map((_, i) => i), ticktext: at });
  const many = columns.length > 25 ? columns.map((c, i) => i % Math.ceil(columns.length / 20) ? "" : c) : columns;
  return {
    data: [{ type: "heatmap", z: h.values, x: columns.map((_, i) => i), y: rows.map((_, i) => i), hoverinfo: "text", text: told, zmin: 0, zmax: top, xgap: 1, ygap: 1, showscale: size < 7, colorscale: stops.map((c, i) => [i / (stops.length - 1), c]), colorbar: { ticksuffix: " %", thickness: 10 } }],
    layout: { xaxis: { title: { text: esc(h.column), standoff: 6 }, side: "top", showgrid: false, zeroline: false, automargin: true, ...names(many) }, yaxis: { title: { text: h.row === "layer" ? "" : esc(h.row), standoff: 10 }, autorange: "reversed", showgrid: false, zeroline: false, automargin: true, ...names(rows) }, annotations: notes, height: Math.max(190, Math.min(620, 95 + 30 * rows.length)), margin: { l: 10, r: 8, t: 50, b: 12 } },
  };
}
