// Records over time by level. A range is chosen by dragging, or by the arrow keys with Shift, and Enter.

import { ask } from "./api.js";
import { $, LEVELS, count, levelClass, svg, timeNode, timeText, el } from "./dom.js";
import { fill, incomplete } from "./panel.js";
import { asked, filters, go, range } from "./state.js";

const WIDTH = 10; // of a bar, in units of the drawing, which is 100 high
const DAY = 86400e3;

let bins = [];
let width = 0; // milliseconds
let total = 0;
let from = 0; // the bars where the choice begins, and where it has come to
let to = 0;
let dragging = false;
let choosing = false; // by dragging or by keys, and not done yet

/** Draw the range that is asked for; one open at its end goes on to now, or to the newest record if that is later.
 * Return how many batches of records had to be read to count them; 0 as well when it failed. */
export async function load(signal, newest) {
  const panel = $("over-time");
  let read = 0;
  await fill(panel, signal, async () => {
    const query = filters();
    const end = Math.max(Date.now(), Date.parse(newest?.timestamp) || 0);
    if (range()[0] && !asked("end") && end < Date.now() + DAY) query.set("end_time", new Date(end).toISOString());
    query.set("stats", "true");
    const { body, missing } = await ask(`/logs/histogram?${query}`, signal);
    read = Object.values(body.stats.read).reduce((sum, batches) => sum + batches, 0);
    const chosen = choosing ? [from, to].map((place) => bins[place].start) : [];
    ({ bins, total } = body);
    width = body.interval_seconds * 1e3;
    draw(body.end, chosen.map((start) => bins.findIndex((bin) => bin.start === start)));
    incomplete(panel, missing);
  });
  return read;
}

/** Draw the bars, and what is being chosen, by its places among them; it is given up if one of them is not there. */
function draw(end, chosen) {
  const chart = $("histogram");
  const most = Math.max(1, ...bins.map((bin) => bin.total));
  chart.setAttribute("viewBox", `0 0 ${Math.max(1, bins.length) * WIDTH} 100`);
  chart.setAttribute("aria-valuemax", Math.max(0, bins.length - 1));
  chart.replaceChildren(...bins.flatMap((bin, place) => bar(bin, place, most)), svg("rect", { class: "chosen", y: 0, height: 100, width: 0 }));
  choosing = chosen.length > 0 && !chosen.includes(-1);
  dragging &&= choosing;
  [from, to] = choosing ? chosen : Array(2).fill(Math.max(0, bins.length - 1));
  const last = bins.length && Date.parse(end) - Date.parse(bins[0].start);
  const part = last <= 2 * DAY ? [11, width < 60e3 ? 19 : 16] : last <= 100 * DAY ? [5, 16] : [0, 10];
  const quarters = bins.length >= 8 ? [0, 1, 2, 3].map((each) => bins[Math.round((each * bins.length) / 4)].start) : [];
  $("over-time").querySelector(".axis").replaceChildren(...[...quarters, ...(bins.length ? [end] : [])]
    .map((time) => timeNode(time, ...part)));
  show(choosing);
}

function bar(bin, place, most) {
  let top = 100;
  return LEVELS.filter((level) => bin.levels[level]).map((level) => {
    const height = Math.max(1.5, (bin.levels[level] / most) * 98);
    top -= height;
    return svg("rect", { class: levelClass(level), x: place * WIDTH + 1, y: Math.max(0, top), width: WIDTH - 2, height });
  });
}

/** Show what is chosen: the range, and how many records are in it; without a choice, those of all bars. */
function show(marked, [a, b] = [Math.min(from, to), Math.max(from, to)]) {
  const chosen = $("histogram").querySelector(".chosen");
  chosen.setAttribute("x", a * WIDTH);
  chosen.setAttribute("width", marked ? (b - a + 1) * WIDTH : 0);
  const inside = marked ? bins.slice(a, b + 1) : bins;
  const levels = LEVELS.map((level) => [level, inside.reduce((sum, bin) => sum + (bin.levels[level] ?? 0), 0)]);
  const sum = marked ? levels.reduce((all, [, n]) => all + n, 0) : total;
  const when = marked ? `${timeText(bins[a].start).slice(0, 19)} to ${timeText(endOf(b)).slice(0, 19)}: ` : "";
  const told = `${when}${count(sum, "record")}`;
  const parts = levels.filter(([, n]) => n).map(([level, n]) => `${n.toLocaleString("en")} ${level}`);
  $("told").replaceChildren(told, marked ? el("span", {}, ` ${parts.join(", ")}`) : bins.length ? `, ${span(width / 1e3)} a bar` : "");
  $("histogram").setAttribute("aria-valuenow", to);
  $("histogram").setAttribute("aria-valuetext", `${told}${parts.length ? `, ${parts.join(", ")}` : ""}`);
}

const endOf = (place) => new Date(Date.parse(bins[place].start) + width).toISOString();

function span(seconds) {
  const [unit, length] = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, each]) => seconds % each === 0);
  return `${seconds / length} ${unit}`;
}

/** Search in what is chosen. */
function apply() {
  choosing = false;
  if (!bins.length) return;
  const end = new Date(Date.parse(endOf(Math.max(from, to))) - 1).toISOString().replace("Z", "999Z"); // to the microsecond
  go({ start: bins[Math.min(from, to)].start, end, since: "" });
}

function placeOf(event) {
  const { left, width: wide } = $("histogram").getBoundingClientRect();
  return Math.min(bins.length - 1, Math.max(0, Math.floor(((event.clientX - left) / wide) * bins.length)));
}

const MOVES = { ArrowLeft: () => to - 1, ArrowRight: () => to + 1, Home: () => 0, End: () => bins.length - 1 };

export function start() {
  const chart = $("histogram");
  chart.addEventListener("pointerdown", (event) => {
    if (event.button || !bins.length) return;
    chart.setPointerCapture(event.pointerId);
    dragging = choosing = true;
    from = to = placeOf(event);
    show(true);
  });
  chart.addEventListener("pointermove", (event) => {
    if (!bins.length) return;
    const place = placeOf(event);
    if (dragging) to = place;
    show(true, dragging ? undefined : [place, place]);
  });
  chart.addEventListener("pointerup", () => {
    if (dragging) apply();
    dragging = false;
  });
  const leave = () => {
    dragging = choosing = false;
    show(false);
  };
  for (const name of ["pointercancel", "pointerleave", "blur"]) chart.addEventListener(name, leave);
  chart.addEventListener("focus", () => bins.length && !dragging && show(true));
  chart.addEventListener("keydown", (event) => {
    if (event.key in MOVES && bins.length) {
      to = Math.min(bins.length - 1, Math.max(0, MOVES[event.key]()));
      if (!event.shiftKey) from = to;
      choosing = true;
      show(true);
    } else if (event.key === "Enter") apply();
    else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}
