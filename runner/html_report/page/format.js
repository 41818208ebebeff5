// Numbers as texts, as Python writes them on the terminal: runner/console/numbers.py, runner/cost, runner/estimate.
"use strict";

const MOST_DIGITS = 1e15;
const NUDGE = 1 - 1e-12;

function number(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) && Math.abs(value) < MOST_DIGITS ? String(value) : general(value, 6);
}

const loss = (value) => (value === null || value === undefined ? "" : fixed(value, 4));

// Of two losses.
const NO_DIFFERENCE = 1e-9;
function difference(value) {
  if (!value || Number(loss(value)) || Math.abs(value) < NO_DIFFERENCE) return loss(value);
  return fixed(value, 1 - Number(scientific(value, 1).split("e")[1]));
}

function money(dollars) {
  if (dollars === null || dollars === undefined) return "";
  if (dollars > 0 && dollars < 0.0001) return "under $0.0001";
  return `$${fixed(dollars, dollars >= 0.1 || dollars === 0 ? 2 : 4)}`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 120) return `${fixed(seconds, seconds < 10 ? 1 : 0)} s`;
  return seconds < 7200 ? `${fixed(seconds / 60, 0)} min` : `${general(seconds / 3600, 2)} h`;
}

const percent = (part) => `${fixed(part * 100, 0)}%`;

// A value half-way between two texts becomes the even one, as in Python; JavaScript takes the larger.
function fixed(value, digits) {
  const text = value.toFixed(digits);
  const nearHalf = Math.abs(((Math.abs(value) * 10 ** digits) % 1) - 0.5) < 1e-6;
  const isHalf =
    nearHalf &&
    /^50*$/.test(
      value
        .toFixed(Math.min(100, digits + 50))
        .split(".")[1]
        .slice(digits),
    );
  return isHalf && isOdd(text) ? (value * NUDGE).toFixed(digits) : text;
}

// C's %g.
function general(value, digits) {
  const [mantissa, power] = scientific(value, digits - 1).split("e");
  const exponent = Number(power);
  const short = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (exponent >= -4 && exponent < digits)
    return short(Number(`${mantissa}e${exponent}`).toFixed(digits - 1 - exponent));
  return `${short(mantissa)}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

function scientific(value, digits) {
  const text = value.toExponential(digits);
  const rest = value
    .toExponential(Math.min(100, digits + 50))
    .split("e")[0]
    .replace(/^-?\d\.?/, "")
    .slice(digits);
  return /^50*$/.test(rest) && isOdd(text.split("e")[0]) ? (value * NUDGE).toExponential(digits) : text;
}

const isOdd = (text) => "13579".includes(text[text.length - 1]);
