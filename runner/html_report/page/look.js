// Formats text, numbers and colours. Everything that users wrote reaches the page through `el`, as text.
"use strict";

const wide = () => window.innerWidth >= 640 || printing;
let printing = false;
const dark = () => !printing && window.matchMedia("(prefers-color-scheme: dark)").matches;
const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function number(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5)));
}

const loss = (value) => (value === null || value === undefined ? "" : value.toFixed(4));

function money(dollars) {
  if (dollars === null || dollars === undefined) return "";
  return dollars >= 0.1 || dollars === 0 ? `$${dollars.toFixed(2)}` : `$${Number(dollars.toPrecision(2))}`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 100) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 6000) return `${(seconds / 60).toFixed(1)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

const statusClass = (run) => ({ succeeded: "good", running: "run", pending: "none", stopped: "wait" }[run.status] || "bad");

// A run that failed because its loss was NaN gets a status text of its own.
const isBroken = (run) => run.status === "failed" && run.reason === "nan";

function statusText(run) {
  if (isBroken(run)) return "diverged (NaN)";
  return run.reason && ["failed", "stopped"].includes(run.status) ? `${run.status} (${run.reason})` : run.status;
}

// Viridis, without the end that is hard to see on the page's background; the best runs have the most contrast.
const STOPS = {
  light: [[68, 1, 84], [59, 82, 139], [33, 145, 140], [74, 178, 106]],
  dark: [[253, 231, 37], [122, 209, 81], [42, 157, 143], [96, 116, 180]],
};
const DISTINCT = {
  light: ["#0b5cad", "#c2410c", "#1a7f37", "#8e24aa", "#8a6d00", "#0e7c86", "#b3246b", "#555b63"],
  dark: ["#6cb2ff", "#ff9d5c", "#5fcf80", "#d59bff", "#e5c454", "#5cd6d6", "#ff8ac4", "#b4bcc6"],
};
const FEW = 8;

function mix(part) {
  const stops = STOPS[dark() ? "dark" : "light"];
  const at = Math.min(Math.max(part, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const rgb = stops[low].map((from, index) => Math.round(from + (stops[low + 1][index] - from) * (at - low)));
  return `rgb(${rgb.join(",")})`;
}

// The scale ends at the 90th percentile: otherwise, one very bad run would give all others the same colour.
function metricScale(runs) {
  const finals = runs.map((run) => run.ranked).filter((value) => value !== null).sort((a, b) => a - b);
  const low = finals[0];
  const high = finals[Math.ceil(finals.length * 0.9) - 1];
  const of = (value) => (value === null || value === undefined ? colour("soft") : mix(high > low ? (value - low) / (high - low) : 0));
  return { low, high, clipped: finals.length > 0 && finals[finals.length - 1] > high, of, some: finals.length > 0 };
}

function drawScale(into, scale, metric) {
  if (!scale.some) return into.replaceChildren();
  const bar = el("i");
  bar.style.background = `linear-gradient(90deg, ${[0, 0.25, 0.5, 0.75, 1].map(mix).join(",")})`;
  into.replaceChildren(el("span", {}, `${metric} ${loss(scale.low)}`), bar, el("span", {}, `${loss(scale.high)}${scale.clipped ? " and more" : ""}`));
}

function tip(lines) {
  return el("div", { class: "tip" }, ...lines.flatMap((line, index) => (index ? [el("br"), line] : [line])));
}

function styleOf() {
  const soft = colour("soft");
  return {
    text: { color: colour("text"), fontFamily: getComputedStyle(document.documentElement).fontFamily },
    axis: {
      nameTextStyle: { color: soft }, axisLabel: { color: soft, hideOverlap: true },
      axisLine: { lineStyle: { color: colour("line") } }, axisTick: { lineStyle: { color: colour("line") } },
      splitLine: { lineStyle: { color: colour("line"), opacity: 0.6 } },
    },
    tooltip: {
      confine: true, backgroundColor: colour("card"), borderColor: colour("line"),
      textStyle: { color: colour("text"), fontSize: 12.5 },
    },
  };
}

const charts = new Map();

function draw(id, option) {
  const place = typeof id === "string" ? byId(id) : id;
  if (!charts.has(place)) charts.set(place, echarts.init(place, null, { renderer: "svg" }));
  const chart = charts.get(place);
  chart.resize();
  const style = styleOf();
  chart.setOption({ animation: false, textStyle: style.text, ...option, tooltip: { ...style.tooltip, ...option.tooltip } }, true);
  return chart;
}
