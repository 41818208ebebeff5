// What the page shows of a run: its status, its name, its value in a column, its group.
"use strict";

const AT_RUNG = "stopped at rung";
const isAtRung = (run) => run.status === AT_RUNG;

const statusClass = (run) =>
  ({ succeeded: "good", running: "run", pending: "none", stopped: "wait", [AT_RUNG]: "wait" })[run.status] || "bad";

// A run that failed because its loss was NaN gets a status text of its own.
const isBroken = (run) => run.status === "failed" && run.reason === "nan";

function statusText(run) {
  if (isBroken(run)) return "diverged (NaN)";
  if (isAtRung(run)) return `${run.status} ${run.rung ?? ""}`.trim();
  return run.reason && ["failed", "stopped"].includes(run.status) ? `${run.status} (${run.reason})` : run.status;
}

function stepsText(run) {
  if (run.step === null) return "";
  return run.max_steps && run.step < run.max_steps ? `${run.step}/${run.max_steps}` : String(run.step);
}

// The columns of the table of runs. `name` is what a filter calls it, as `axosweep compare --where` and --sort do.
function runColumns(report) {
  const some = (column) => report.runs.some((run) => !isEmpty(column.read(run)));
  const measured = [...new Set(report.runs.flatMap((run) => Object.keys(run.measured)))];
  const metric = {
    name: report.metric,
    read: (run) => (isBroken(run) || isAtRung(run) ? null : run.final),
    show: (run) => (isBroken(run) ? "NaN" : isAtRung(run) ? "" : loss(run.final)),
  };
  const params = report.params.map((name) => ({
    name,
    text: report.runs.some((run) => typeof run.params[name] === "string"),
    clip: true,
    read: (run) => run.params[name],
    show: (run) => number(run.params[name]),
  }));
  const status = { name: "status", text: true, read: statusText };
  const first = wide() ? [status, ...params, metric] : [metric, ...params, status];
  const seconds = (digits, read) => ({ read, show: (run) => (isEmpty(read(run)) ? "" : fixed(read(run), digits)) });
  const rest = [
    { name: "difference", read: (run) => run.difference, show: (run) => difference(run.difference) },
    ...measured.map((name) => ({ name, read: (run) => run.measured[name], show: (run) => loss(run.measured[name]) })),
    ...(report.search ? report.search.rungs : []).map(({ rung }) => ({
      name: `rung.${rung}`,
      heading: `rung ${rung}`,
      read: (run) => atRung(run, rung),
      show: (run) => loss(atRung(run, rung)),
    })),
    { name: "why", text: true, read: (run) => (run.rungs.length ? run.rungs[run.rungs.length - 1].why : "") },
    {
      name: "best",
      read: (run) => (isAtRung(run) ? null : run.best),
      show: (run) => (isAtRung(run) ? "" : loss(run.best)),
    },
    { name: "first", read: (run) => run.first, show: (run) => loss(run.first) },
    { name: "step", heading: "steps", read: (run) => run.step, show: stepsText },
    { name: "seconds", ...seconds(1, (run) => run.seconds) },
    { name: "tokens_per_second", heading: "tok/s", ...seconds(0, (run) => run.tokens_per_second) },
    { name: "train_seconds", heading: "train s", ...seconds(1, (run) => run.train_seconds) },
    { name: "paid_seconds", heading: "paid s", ...seconds(0, (run) => (run.gpu ? run.paid : null)) },
    { name: "dollars", read: (run) => run.dollars, show: (run) => money(run.dollars) },
    { name: "peak_memory_gib", heading: "peak GiB", ...seconds(1, (run) => run.peak_memory) },
    { name: "gpu", text: true, read: (run) => run.gpu },
    {
      name: "attempts",
      heading: "tries",
      read: (run) => (run.attempts > 1 ? run.attempts : null),
      show: (run) => (run.attempts > 1 ? String(run.attempts) : ""),
    },
    { name: "flags", text: true, read: (run) => (run.flags || []).join(", ") },
    {
      name: "eval_fingerprint",
      heading: "held-out rows",
      text: true,
      read: (run) => (severalRows(report) ? run.rows : ""),
    },
  ];
  return [{ name: "key", heading: "run", text: true, read: (run) => run.key }, ...first, ...rest.filter(some)];
}

const isEmpty = (value) => value === null || value === undefined || value === "";

const severalRows = (report) => new Set(report.runs.map((run) => run.rows)).size > 1;

const inWords = (value) => number(value) || "none";

// The groups that one can choose: none, the settings (runs that differ only in their seeds), the values of a parameter.
const SETTING = "@setting";

function groupName(report, run) {
  const names = view.group === SETTING ? report.params.filter((name) => !report.seeds.includes(name)) : [view.group];
  const text = names.map((name) => `${name}=${number(run.params[name])}`).join(" ") || "all seeds";
  return severalRows(report) ? `${text} (held-out rows ${run.rows || "unknown"})` : text;
}

// Groups of these runs in their order, with the statistics of the finished ones.
function groupsOf(report, runs) {
  const members = new Map();
  for (const run of runs) {
    const name = groupName(report, run);
    members.set(name, [...(members.get(name) || []), run]);
  }
  const groups = [...members].map(([name, ones]) => ({
    key: name,
    name,
    runs: ones,
    ...statisticsOf(ones),
    is_best: view.group === SETTING && ones.some((run) => run.is_best),
  }));
  return groups.sort((one, other) => (one.ranked ?? Infinity) - (other.ranked ?? Infinity) || 0);
}

function statisticsOf(runs) {
  const finals = runs.map((run) => run.ranked).filter((value) => value !== null);
  if (!finals.length) return { n: 0, ranked: null, sd: null, low: null, high: null };
  const mean = finals.reduce((sum, value) => sum + value, 0) / finals.length;
  const squares = finals.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const sd = finals.length > 1 ? Math.sqrt(squares / (finals.length - 1)) : null;
  return { n: finals.length, ranked: mean, sd, low: Math.min(...finals), high: Math.max(...finals) };
}

function groupColumns(report) {
  const total = (group, read) =>
    group.runs.reduce((sum, run) => (isEmpty(read(run)) ? sum : (sum ?? 0) + read(run)), null);
  const columns = [
    { name: "group", text: true, clip: true, read: (group) => group.name },
    { name: `mean ${report.metric}`, read: (group) => group.ranked, show: (group) => loss(group.ranked) },
    { name: "sd", read: (group) => group.sd, show: (group) => loss(group.sd) },
    { name: "lowest", read: (group) => group.low, show: (group) => loss(group.low) },
    { name: "highest", read: (group) => group.high, show: (group) => loss(group.high) },
    {
      name: "n",
      read: (group) => group.n,
      show: (group) => (group.n < group.runs.length ? `${group.n}/${group.runs.length}` : String(group.n)),
    },
    {
      name: "dollars",
      read: (group) => total(group, (run) => run.dollars),
      show: (group) => money(total(group, (run) => run.dollars)),
    },
  ];
  return columns.filter((column) => column.name !== "dollars" || report.runs.some((run) => !isEmpty(run.dollars)));
}
