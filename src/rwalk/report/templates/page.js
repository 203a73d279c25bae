// Theme, filter, choice, keyboard, print: what a reader does with the page.
const data = JSON.parse(document.getElementById("data").textContent), root = document.documentElement, drawn = new Map();
const hiddenLabels = new Set(), shown = group => !hiddenLabels.has(group), told = document.getElementById("told");
const system = matchMedia("(prefers-color-scheme: dark)");
const CONFIG = { displaylogo: false, responsive: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], toImageButtonOptions: { format: "svg", filename: "rwalk" } };
root.dataset.theme = system.matches ? "dark" : "light";

function element(tag, text, of = {}) { const made = Object.assign(document.createElement(tag), of); made.textContent = text; return made; }

function numbers(chart, into) {
  const table = document.createElement("table"), rows = [];
  if (chart.heat) {
    rows.push([`${chart.heat.row} \\ ${chart.heat.column}`, ...chart.heat.columns]);
    chart.heat.rows.forEach((r, i) => rows.push([r, ...chart.heat.values[i].map(num)]));
  } else {
    rows.push(["", chart.x || "x", chart.y || "y"]);
    for (const s of chart.series) s.x.forEach((x, i) => { if (s.y[i] != null && rows.length < 1000) rows.push([s.name, num(x), num(s.y[i])]); });
  }
  rows.forEach((row, i) => { const tr = table.insertRow(); row.forEach((cell, k) => tr.append(element(i && k ? "td" : "th", cell))); });
  const scroll = element("div", "", { className: "scroll", tabIndex: 0 });
  scroll.append(table);
  into.append(scroll);
}

function place(chart, into, heading) {
  const plot = element("div", "", { className: "plot", tabIndex: 0 }), more = document.createElement("details");
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `${chart.title}. ${chart.note}`);
  into.replaceChildren();
  if (heading) into.append(element("h3", chart.title));
  into.append(plot, element("figcaption", chart.note));
  more.append(element("summary", "The numbers"));
  more.addEventListener("toggle", () => { if (more.open && more.children.length === 1) numbers(chart, more); });
  into.append(more);
  drawn.set(plot, chart);
  plot.addEventListener("keydown", step);
  return plot;
}
function wait(plot) { // drawn when it comes near
  plot.style.minHeight = `${figure(drawn.get(plot), plot.clientWidth, shown).layout.height}px`;
  near.observe(plot);
}
const near = new IntersectionObserver(seen => seen.forEach(one => { if (one.isIntersecting) { near.unobserve(one.target); draw(one.target); } }), { rootMargin: "400px" });

function draw(plot) {
  const { data: of, layout } = figure(drawn.get(plot), Math.floor(plot.clientWidth) || 700, shown);
  return Plotly.react(plot, of, layout, CONFIG);
}
function redraw(all) {
  for (const plot of drawn.keys()) {
    if (!plot.isConnected) { Plotly.purge(plot); near.unobserve(plot); drawn.delete(plot); } else if (all || plot.data) draw(plot);
  }
}

function step(event) {
  const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key], plot = event.currentTarget;
  if (!way) return;
  event.preventDefault();
  const points = plot.data.flatMap((t, c) => t.visible === false || t.hoverinfo === "skip" ? [] : t.type === "heatmap"
    ? t.z.flatMap((row, i) => row.map((_, k) => ({ curveNumber: c, pointNumber: [i, k], text: t.text[i][k] })))
    : t.x.flatMap((v, i) => v == null || t.y[i] == null ? [] : [{ curveNumber: c, pointNumber: i, text: t.hovertext[i] }]));
  if (!points.length) return;
  plot.at = ((plot.at ?? (way > 0 ? -1 : 0)) + way + points.length) % points.length;
  const { text, ...point } = points[plot.at];
  Plotly.Fx.hover(plot, [point]);
  told.textContent = text.replace(/<br>/g, ", ").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
}

function choose(section, which) {
  const { choices } = data.sections[section.id], one = choices[which];
  const groups = new Map(), figures = section.querySelector(".figures");
  figures.replaceChildren();
  const plots = [];
  section.querySelector(".chosen").textContent = choices.length > 1 ? one.label : "";
  for (const chart of one.charts) {
    const kind = chart.key.startsWith("layers-") ? "layers" : chart.key;
    if (!groups.has(kind)) { groups.set(kind, element("div", "", { className: kind === "layers" ? "several" : "" })); figures.append(groups.get(kind)); }
    const into = document.createElement("figure");
    groups.get(kind).append(into);
    into.dataset.key = chart.key;
    plots.push(place(chart, into, true));
  }
  plots.forEach(wait);
}

function filter() {
  const boxes = [...document.querySelectorAll("#filter input[type=checkbox]")];
  hiddenLabels.clear();
  boxes.forEach(box => { if (!box.checked) hiddenLabels.add(data.labels[+box.value]); });
  document.querySelectorAll("tr[data-group]").forEach(row => { row.hidden = hiddenLabels.has(data.labels[+row.dataset.group]); });
  document.getElementById("count").textContent = `${boxes.length - hiddenLabels.size} of ${boxes.length} shown`;
  redraw();
}
function search(text) {
  const parts = text.toLowerCase().split(/\s+/).filter(Boolean);
  document.querySelectorAll("#filter .labels label").forEach(label => { label.firstElementChild.checked = parts.every(part => label.textContent.toLowerCase().includes(part)); });
  filter();
}
function dots() { document.querySelectorAll("i[data-colour]").forEach(dot => { dot.style.background = colour(+dot.dataset.colour); }); }
function inTheme(name, all) { root.dataset.theme = name; dots(); redraw(all); }

dots();
if (document.getElementById("filter")) {
  const boxes = document.querySelectorAll("#filter input[type=checkbox]"), all = on => { boxes.forEach(box => { box.checked = on; }); filter(); };
  document.getElementById("filter").addEventListener("change", event => { if (event.target.type === "checkbox") filter(); });
  document.getElementById("search").addEventListener("input", event => search(event.target.value));
  document.getElementById("all").addEventListener("click", () => all(true));
  document.getElementById("none").addEventListener("click", () => all(false));
}
document.getElementById("theme").addEventListener("click", () => inTheme(root.dataset.theme === "dark" ? "light" : "dark"));
document.getElementById("print").addEventListener("click", () => print());
document.querySelectorAll(".copy").forEach(button => button.addEventListener("click", () => {
  const code = button.previousElementSibling, range = document.createRange();
  range.selectNodeContents(code);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  document.execCommand("copy");
  button.textContent = "Copied";
}));
let before = null, waiting = 0;
system.addEventListener("change", event => { if (!before) inTheme(event.matches ? "dark" : "light"); }); // paper is light, and says so
addEventListener("beforeprint", () => { before ??= root.dataset.theme; document.body.style.width = "180mm"; inTheme("light", true); });
addEventListener("afterprint", () => { document.body.style.width = ""; if (before) inTheme(before); before = null; });
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(redraw, 120); });

function start() { // Plotly takes a second to begin; the text is there before
  const plotly = document.getElementById("plotly"), script = document.createElement("script");
  script.textContent = plotly.textContent;
  document.head.append(script);
  plotly.remove();
  [...document.querySelectorAll("figure[data-chart]")].map(into => place(data.charts[+into.dataset.chart], into, into.parentElement.querySelectorAll("figure").length > 1)).forEach(wait);
  document.querySelectorAll("section select").forEach(select => {
    const section = select.closest("section");
    choose(section, select.selectedIndex);
    select.addEventListener("change", () => choose(section, select.selectedIndex));
  });
  root.dataset.ready = String(Math.round(performance.now()));
}
requestAnimationFrame(() => setTimeout(start));
