// Copies of the table as CSV and Markdown, and of charts as PNG. If the browser does not allow copying, a file is saved.
"use strict";

const PNG_SCALE = 2;

function say(text) {
  byId("message").textContent = text;
  byId("message").classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => byId("message").classList.remove("shown"), 4000);
}

// A spreadsheet runs a cell that begins like this as a formula, unless it is a number or an interval of the table.
const FORMULA = /^\s*[=+@-]/;
const NUMBERS = /^[+-]?[\d.,]+(e[+-]?\d+)?( to [+-]?[\d.,]+(e[+-]?\d+)?)?$|^-$/;

function asCsv(rows) {
  const plain = (text) => (FORMULA.test(text) && !NUMBERS.test(text) ? `'${text}` : text);
  const cell = (value) => quoted(plain(value));
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}

function asMarkdown([head, ...rows], isText) {
  const cell = (text) => text.replaceAll("|", "\\|").replace(/\s*\n\s*/g, " ");
  const line = (cells) => `| ${cells.map(cell).join(" | ")} |\n`;
  return line(head) + line(isText.map((left) => (left ? "---" : "---:"))) + rows.map(line).join("");
}

async function copyText(text, kind, extension) {
  try {
    await navigator.clipboard.writeText(text);
    say(`Copied as ${kind}.`);
  } catch {
    saveFile(new Blob([text], { type: "text/plain" }), `${report.sweep}.${extension}`);
  }
}

async function copyPng(place) {
  const { title } = about.get(place);
  const blob = await pngOf(place);
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    say(`Copied as PNG: ${title}.`);
  } catch {
    saveFile(blob, `${report.sweep} ${title}.png`);
  }
}

function saveFile(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name.replace(/[^\w .-]+/g, "_") }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  say(`The browser does not allow copying, so the copy is saved as ${name}.`);
}

// The chart with its title and its legend, on the page's background.
async function pngOf(place) {
  const { title, legend } = about.get(place);
  const image = new Image();
  image.src = charts.get(place).getDataURL({ type: "svg" });
  await image.decode();
  const [width, height] = [place.clientWidth, place.clientHeight];
  const canvas = el("canvas");
  const pen = canvas.getContext("2d");
  pen.font = `13px ${fontFamily()}`;
  const rows = legendRows(pen, legend, width - 24);
  const top = 36 + rows.length * 20;
  Object.assign(canvas, { width: width * PNG_SCALE, height: (top + height) * PNG_SCALE });
  pen.scale(PNG_SCALE, PNG_SCALE);
  pen.fillStyle = colour("back");
  pen.fillRect(0, 0, width, top + height);
  pen.fillStyle = colour("text");
  pen.font = `600 15px ${fontFamily()}`;
  pen.fillText(title, 12, 22, width - 24);
  pen.font = `13px ${fontFamily()}`;
  rows.forEach((row, at) => row.forEach((item) => drawItem(pen, item, 48 + at * 20)));
  pen.drawImage(image, 0, top, width, height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function legendRows(pen, items, width) {
  const rows = [];
  let x = Infinity;
  for (const item of items) {
    const mark = item.ramp ? 110 : item.swatch ? 18 : 0;
    const room = mark + pen.measureText(item.text || "").width + 14;
    if (x + room > width) {
      rows.push([]);
      x = 0;
    }
    rows[rows.length - 1].push({ ...item, x: x + 12, mark });
    x += room;
  }
  return rows;
}

function drawItem(pen, { text, swatch, ramp: colours, x, mark }, y) {
  if (mark) {
    const fill = colours ? pen.createLinearGradient(x, 0, x + 104, 0) : swatch;
    (colours || []).forEach((one, at) => fill.addColorStop(at / (colours.length - 1), one));
    pen.fillStyle = fill;
    pen.fillRect(x, y - 10, colours ? 104 : 12, 12);
  }
  pen.fillStyle = colour("text");
  pen.fillText(text || "", x + mark, y);
}
