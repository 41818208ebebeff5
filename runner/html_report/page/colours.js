// Colours of runs by a metric or a parameter, and the legends that explain them.
"use strict";

// Viridis, without the end that is hard to see on the page's background. The first colour, that of the best, has the
// most contrast.
const STOPS = {
  light: [
    [68, 1, 84],
    [59, 82, 139],
    [33, 145, 140],
    [74, 178, 106],
  ],
  dark: [
    [253, 231, 37],
    [122, 209, 81],
    [42, 157, 143],
    [96, 116, 180],
  ],
};
const DISTINCT = {
  light: ["#0b5cad", "#c2410c", "#1a7f37", "#8e24aa", "#8a6d00", "#0e7c86", "#b3246b", "#555b63"],
  dark: ["#6cb2ff", "#ff9d5c", "#5fcf80", "#d59bff", "#e5c454", "#5cd6d6", "#ff8ac4", "#b4bcc6"],
};
const FEW = 8;
const palette = () => DISTINCT[dark() ? "dark" : "light"];

function mix(part) {
  const stops = STOPS[dark() ? "dark" : "light"];
  const at = Math.min(Math.max(part, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const rgb = stops[low].map((from, index) => Math.round(from + (stops[low + 1][index] - from) * (at - low)));
  return `rgb(${rgb.join(",")})`;
}

function readable(rgb) {
  const [red, green, blue] = rgb.match(/\d+/g).map(Number);
  return red * 0.299 + green * 0.587 + blue * 0.114 > 115 ? "#111" : "#fff";
}

const ramp = (low, high) => [{ text: low }, { ramp: [0, 0.25, 0.5, 0.75, 1].map(mix) }, { text: high }];

// By the final metric. The scale ends at the 90th percentile: otherwise, one very bad run would give all others the
// same colour.
function metricColours(report) {
  const finals = report.runs
    .map((run) => run.ranked)
    .filter((value) => value !== null)
    .sort((a, b) => a - b);
  const [low, high] = [finals[0], finals[Math.ceil(finals.length * 0.9) - 1]];
  const ofValue = (value) => (isEmpty(value) ? colour("soft") : mix(high > low ? (value - low) / (high - low) : 0));
  const worst = `${loss(high)}${finals.length && finals[finals.length - 1] > high ? " and more" : ""}`;
  return {
    of: (run) => ofValue(run.ranked),
    ofValue,
    legend: finals.length ? ramp(`${report.metric}: best ${loss(low)}`, worst) : [],
  };
}

function parameterColours(report, name) {
  const values = [...new Set(report.runs.map((run) => run.params[name]))].sort(compareValues);
  if (values.length <= FEW) {
    const of = (run) => palette()[values.indexOf(run.params[name])];
    return {
      of,
      legend: [{ text: name }, ...values.map((value, at) => ({ text: inWords(value), swatch: palette()[at] }))],
    };
  }
  if (values.every((value) => typeof value === "number")) {
    const [low, high] = [values[0], values[values.length - 1]];
    const place = low > 0 && high / low > 20 ? Math.log : (value) => value;
    const of = (run) => mix((place(run.params[name]) - place(low)) / (place(high) - place(low)));
    return { of, legend: ramp(`${name} ${number(low)}`, number(high)) };
  }
  const shown = values.slice(0, FEW - 1);
  const of = (run) => (shown.includes(run.params[name]) ? palette()[shown.indexOf(run.params[name])] : colour("soft"));
  const rest = { text: `${values.length - shown.length} other values`, swatch: colour("soft") };
  return {
    of,
    legend: [{ text: name }, ...shown.map((value, at) => ({ text: inWords(value), swatch: palette()[at] })), rest],
  };
}

// The chosen colours of single runs; by the metric if none are chosen.
function runColours(report) {
  return report.params.includes(view.colour) ? parameterColours(report, view.colour) : metricColours(report);
}

function drawLegend(into, items) {
  into.className = "legend";
  into.replaceChildren(
    ...items.map(({ text, swatch, ramp: colours }) => {
      const mark = swatch || colours ? el("i", { class: colours ? "ramp" : "" }) : null;
      if (mark) mark.style.background = swatch || `linear-gradient(90deg, ${colours.join(",")})`;
      return el("span", {}, mark, text);
    }),
  );
}
