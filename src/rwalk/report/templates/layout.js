// Axes, and names written beside what they name: none over another, none outside; what has no room is told by hovering.
function span(values, log) {
  const known = values.filter(v => typeof v === "number" && (!log || v > 0));
  if (!known.length) return [0, 1];
  const at = log ? known.map(Math.log10) : known, low = Math.min(...at), high = Math.max(...at), pad = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - pad, high + pad];
}

function named(chart, shown, xr, yr, box) {
  const px = (v, r, n, log) => ((log ? Math.log10(v) : v) - r[0]) / (r[1] - r[0]) * n, placed = [], notes = [];
  const dots = [], lines = chart.series.some(s => s.direct && s.kind !== "mean");
  const todo = chart.series.filter(s => s.direct && (s.group == null || shown(s.group)));
  for (const s of todo) {
    let i = s.y.length - 1;
    while (i >= 0 && s.y[i] == null) i--;
    if (i >= 0) dots.push({ s, i, x: px(s.x[i], xr, box.w, chart.log_x), y: px(s.y[i], yr, box.h) });
  }
  const hits = (a, b) => a.l < b.r && b.l < a.r && a.b < b.t && b.b < a.t;
  const signs = lines ? [] : dots.map(d => ({ l: d.x - 6, r: d.x + 6, b: d.y - 6, t: d.y + 6, of: d }));
  for (const d of dots.sort((a, b) => b.y - a.y)) {
    const text = cut(d.s.direct, box.w < 420 ? 15 : 28), w = 7 * text.length + 4;
    const ways = lines ? [0, -14, 14, -28, 28, -42, 42].map(dy => [8, dy]) : [[7, 13], [7, -13], [-7 - w, 13], [-7 - w, -13], [10, 0], [-10 - w, 0], [-w / 2, 17], [-w / 2, -17], [7, 27], [7, -27], [-7 - w, 27], [-7 - w, -27]];
    for (const [dx, dy] of ways) {
      const at = { l: d.x + dx, r: d.x + dx + w, b: d.y + dy - 7, t: d.y + dy + 7 };
      if (placed.some(p => hits(at, p)) || signs.some(p => p.of !== d && hits(at, p)) || (!lines && (at.l < 0 || at.r > box.w)) || at.b < -8 || at.t > box.h + 10) continue;
      placed.push(at);
      notes.push({ x: chart.log_x ? Math.log10(d.s.x[d.i]) : d.s.x[d.i], y: d.s.y[d.i], xshift: dx, yshift: dy, xanchor: "left", yanchor: "middle", showarrow: false, text: esc(text), bgcolor: css("--bg") + "c8", borderpad: 1, font: { size: 12, color: colour(d.s.colour, chart.ordered) } });
      break;
    }
  }
  return notes;
}

function figure(chart, width, shown) {
  const small = width < 500, ink = css("--fg"), line = css("--line");
  const all = { paper_bgcolor: css("--bg"), plot_bgcolor: css("--bg"), font: { family: "system-ui, DejaVu Sans, sans-serif", size: 12, color: ink }, showlegend: false, hovermode: "closest", hoverlabel: { bgcolor: css("--card"), bordercolor: line, font: { color: ink } }, width, dragmode: small ? false : "zoom" };
  if (chart.heat) { const h = heat(chart, width); return { data: h.data, layout: { ...all, ...h.layout } }; }
  const data = traces(chart);
  data.forEach(t => { t.visible = t.meta.group == null || shown(t.meta.group); });
  if (chart.series.length && chart.series.every(s => s.kind === "bar")) {
    const rows = chart.series[0].x.length;
    return { data, layout: { ...all, barmode: chart.stacked ? "stack" : "group", showlegend: chart.series.length > 1, legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", traceorder: "normal" }, height: 110 + rows * (chart.stacked ? 26 : 18 + 12 * chart.series.length), margin: { l: 10, r: 45, t: chart.series.length > 1 ? 40 : 8, b: 45 }, xaxis: { title: { text: esc(chart.y), standoff: 6 }, gridcolor: line, zeroline: false, rangemode: "tozero" }, yaxis: { type: "category", autorange: "reversed", automargin: true } } };
  }
  const seen = chart.series.filter(s => s.group == null || shown(s.group)), of = seen.length ? seen : chart.series;
  const ends = (axis, half) => of.flatMap(s => s[axis].flatMap((v, i) => { const h = (s[half] || [])[i]; return h == null || v == null ? [v] : [v - h, v + h]; }));
  const xr = span([...ends("x", "x_half"), ...(chart.zero ? [0] : [])], chart.log_x);
  const yr = chart.y_range || span([...ends("y", "y_half"), ...of.flatMap(s => [...(s.low || []), ...(s.high || [])]), ...(chart.zero ? [0] : [])]);
  const lines = of.some(s => s.direct && s.kind !== "mean"), longest = Math.max(0, ...of.map(s => (s.direct || "").length));
  const margin = { l: 58, r: lines ? Math.min(small ? 112 : 205, 16 + 7 * longest) : 12, t: 12, b: 48 }, height = small ? 330 : 400;
  const box = { w: width - margin.l - margin.r, h: height - margin.t - margin.b };
  const axis = { gridcolor: line, zeroline: Boolean(chart.zero), zerolinecolor: css("--soft"), linecolor: line, automargin: false };
  const whole = of.every(s => s.x.every(v => v == null || Number.isInteger(v))) && xr[1] - xr[0] < 12;
  const marks = (chart.marks || []).map(m => ({ type: "line", x0: m, x1: m, y0: 0, y1: 1, yref: "paper", line: { color: line, width: 1, dash: "dot" } }));
  return { data, layout: { ...all, height, margin, shapes: marks, annotations: named(chart, shown, xr, yr, box), xaxis: { ...axis, title: { text: esc(chart.x), standoff: 8 }, range: xr, type: chart.log_x ? "log" : "linear", ...(whole ? { dtick: 1 } : {}), ...(chart.log_x ? { dtick: 1 } : {}) }, yaxis: { ...axis, title: { text: esc(chart.y), standoff: 6 }, range: yr } } };
}
