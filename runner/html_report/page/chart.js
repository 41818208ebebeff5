// One chart of ECharts: drawn with the page's colours, described in words, and copied as PNG.
"use strict";

const charts = new Map();
const about = new Map(); // place -> its title and legend, for the PNG

// Without double quotes, which ECharts would write into an attribute of the SVG.
const fontFamily = () => getComputedStyle(document.documentElement).fontFamily.replaceAll('"', "'");

function styleOf() {
  const soft = colour("soft");
  return {
    text: { color: colour("text"), fontFamily: fontFamily() },
    axis: {
      nameTextStyle: { color: soft },
      axisLabel: { color: soft, hideOverlap: true },
      axisLine: { lineStyle: { color: colour("line") } },
      axisTick: { lineStyle: { color: colour("line") } },
      splitLine: { lineStyle: { color: colour("line"), opacity: 0.6 } },
    },
    tooltip: {
      confine: true,
      backgroundColor: colour("card"),
      borderColor: colour("line"),
      textStyle: { color: colour("text"), fontSize: 12.5 },
    },
  };
}

// `words`: what a person who does not see the chart should know; `legend`: items of drawLegend.
function draw(id, option, { title, words = "", legend = [] }) {
  const place = typeof id === "string" ? byId(id) : id;
  if (!charts.has(place)) {
    charts.set(place, echarts.init(place, null, { renderer: "svg" }));
    addCopyButton(place, title);
  }
  about.set(place, { title, legend });
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `${title}. ${words}`.trim());
  const chart = charts.get(place);
  chart.resize();
  const style = styleOf();
  chart.setOption(
    { animation: false, textStyle: style.text, ...option, tooltip: { ...style.tooltip, ...option.tooltip } },
    true,
  );
  return chart;
}

function addCopyButton(place, title) {
  const heading = place.closest(".effect, section").querySelector("h2, h3");
  if (heading.parentElement.classList.contains("head")) return;
  const button = el("button", { type: "button", class: "copy", "aria-label": `Copy PNG: ${title}` }, "Copy PNG");
  button.addEventListener("click", () => copyPng(place));
  const head = el("div", { class: "head" });
  heading.replaceWith(head);
  head.append(heading, button);
}

function forget(id) {
  for (const [place, chart] of charts) {
    if (byId(id).contains(place)) {
      chart.dispose();
      charts.delete(place);
      about.delete(place);
    }
  }
}

const isLog = (values) =>
  values.length > 1 && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 20;
