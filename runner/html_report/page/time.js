// Where the time went: the seconds that each run was paid for, and next to them, on their own scale, those it waited.
"use strict";

const PART_COLOURS = {
  light: [
    ...["#a9b2bc", "#8d99a6", "#c5b9c9", "#b48a4a", "#d3a75c", "#e3c48d"],
    ...["#3f7fbf", "#0b5cad", "#2a9d8f", "#8e6bb8", "#c79bd8", "#e0e3e7"],
  ],
  dark: [
    ...["#69747f", "#77828e", "#5d5266", "#94703a", "#b98f4c", "#d6b57c"],
    ...["#4d8fd1", "#6cb2ff", "#3fbfae", "#b292dd", "#8a6a9c", "#333940"],
  ],
};
const MOST_BARS = 30;
const QUEUE = "queue";
const QUEUE_NOTE =
  "On the right, with a scale of its own: the queue, in which a run waits for a dataset, a free slot or a machine. " +
  "It is not paid for. ";

function drawTime() {
  const { parts, datasets, paid, training_share: share, containers } = report.receipt;
  byId("time").hidden = !paid;
  if (!paid) return;
  const rented = report.runs.some((run) => run.gpu);
  const word = rented ? "paid time" : "machine time";
  byId("time-lead").textContent =
    share === null
      ? ""
      : `${percent(share)} of the ${word} was training (including its first steps, which compile): ` +
        `${duration(share * paid)} of ${duration(paid)}. ${containers}`.trim();
  const ended = report.runs.filter((run) => run.paid);
  const bars = [...ended].sort((a, b) => b.paid - a.paid).slice(0, MOST_BARS);
  drawTimeBars(
    bars,
    report.parts.filter((name) => name !== QUEUE && parts[name]),
    parts[QUEUE] > 0,
    word,
  );
  byId("time-note").textContent =
    (ended.length > MOST_BARS ? `The ${MOST_BARS} longest of ${ended.length} runs. ` : "") +
    "The longest run comes first. " +
    (parts[QUEUE] > 0 ? QUEUE_NOTE : "") +
    (rented ? "boot: the start of a container, which only its first run pays for. " : "") +
    (parts.idle ? "idle: a container that waited for its next run. " : "") +
    (parts.copy ? "copy: files that were still copied to a Volume when the worker had ended. " : "") +
    "other: the start of the trainer, and time that killed attempts did not report. All attempts count.";
  const row = (name, seconds) => [name, duration(seconds), `${fixed((seconds / paid) * 100, 1)}%`];
  const known = report.parts.filter((name) => name !== QUEUE && parts[name]).map((name) => [name, parts[name]]);
  fillTable(
    "time-table",
    ["all runs together", "seconds", "share"],
    [
      ...known.sort((a, b) => b[1] - a[1]).map(([name, seconds]) => row(name, seconds)),
      [word, duration(paid), "100%"],
      ...(datasets ? [["preparing the datasets", duration(datasets), "besides"]] : []),
      ...(parts[QUEUE] > 0 ? [["waiting in the queue", duration(parts[QUEUE]), "not paid"]] : []),
    ],
  );
  fillContainers();
}

// Only if a container has done several runs, or was kept from that: otherwise, its receipt is that of its run.
function fillContainers() {
  const told = report.containers.filter((one) => one.runs.length > 1 || one.ended_because);
  byId("time-containers").parentElement.hidden = !told.length;
  if (!told.length) return;
  const longest = [...told].sort((a, b) => b.seconds - a.seconds).slice(0, MOST_BARS);
  const present = report.parts.filter((name) => longest.some((one) => one.parts[name]));
  fillTable(
    "time-containers",
    ["container", "runs", "paid", ...present, "dollars", "ended because"],
    longest.map((one) => [
      one.container,
      el("span", { title: one.runs.join("\n") }, String(one.runs.length)),
      duration(one.seconds),
      ...present.map((name) => (one.parts[name] ? duration(one.parts[name]) : "")),
      money(one.dollars),
      one.ended_because,
    ]),
  );
}

function drawTimeBars(bars, present, waited, word) {
  const paint = (name) => PART_COLOURS[dark() ? "dark" : "light"][report.parts.indexOf(name)];
  const legend = [...present, ...(waited ? [QUEUE] : [])].map((name) => ({ text: name, swatch: paint(name) }));
  drawLegend(byId("time-legend"), legend);
  byId("time-chart").style.height = `${bars.length * 1.35 + 4}rem`;
  const [style, width] = [styleOf(), byId("time-chart").clientWidth];
  const left = wide() ? Math.min(360, width * 0.34) : 86;
  const queueWidth = waited ? Math.round((width - left) * 0.2) : 0;
  const across = { top: 6, bottom: 44 };
  const names = bars.map((run) => (wide() ? run.name : run.key));
  const seconds = (name, gridIndex, more) => ({
    ...style.axis,
    type: "value",
    gridIndex,
    name,
    nameLocation: "middle",
    nameGap: 28,
    axisLabel: { ...style.axis.axisLabel, formatter: number },
    ...more,
  });
  const runsAxis = (gridIndex, show) => ({
    ...style.axis,
    type: "category",
    inverse: true,
    gridIndex,
    data: names,
    splitLine: { show: false },
    axisTick: { show },
    axisLabel: {
      ...style.axis.axisLabel,
      show,
      interval: 0,
      hideOverlap: false,
      fontSize: 11,
      width: left,
      overflow: "truncate",
    },
  });
  const bar = (name, axis) => ({
    type: "bar",
    name,
    stack: axis ? "waited" : "paid",
    xAxisIndex: axis,
    yAxisIndex: axis,
    barCategoryGap: "25%",
    itemStyle: {
      color: paint(name),
      decal: axis
        ? { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 4], rotation: -0.8, color: colour("back") }
        : undefined,
    },
    data: bars.map((run) => run.parts[name] || 0),
  });
  draw(
    "time-chart",
    {
      grid: [
        { left: left + 14, right: 18 + queueWidth, ...across },
        ...(waited ? [{ left: width - queueWidth + 14, right: 18, ...across }] : []),
      ],
      xAxis: [seconds(`seconds of ${word}`, 0), ...(waited ? [seconds("queue", 1, { splitNumber: 2 })] : [])],
      yAxis: [runsAxis(0, true), ...(waited ? [runsAxis(1, false)] : [])],
      tooltip: { formatter: (item) => tip([bars[item.dataIndex].name, `${item.seriesName} ${duration(item.value)}`]) },
      series: [...present.map((name) => bar(name, 0)), ...(waited ? [bar(QUEUE, 1)] : [])],
    },
    { title: "How the time was used", words: byId("time-lead").textContent, legend },
  );
}
