// Nodes, texts and times. What comes from records reaches the page through here alone, as text and never as markup.

export const LEVELS = ["EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"];
export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";
const NUMBER = new Intl.NumberFormat("en");

/** Functions among the attributes are listeners; null leaves an attribute out. */
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const button = (text, click, attributes = {}) => el("button", { type: "button", click, ...attributes }, text);

export const number = (value) => NUMBER.format(value);
export const count = (value, what) => `${number(value)} ${what}${value === 1 ? "" : "s"}`;
export const levelClass = (level) => (LEVELS.includes(level) ? `level-${level}` : "");

/** Text with what would act on the line instead of standing in it (controls, changes of direction) written as \\u202e. */
export function plain(text) {
  return String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** The text as nodes, with what the expression finds marked. */
export function marked(text, expression) {
  if (!expression) return [plain(text)];
  const parts = text.split(expression); // the expression has one group, so every other part is what it found
  return parts.map((part, place) => (place % 2 ? el("mark", {}, plain(part)) : plain(part)));
}

// ---- times ----

export const zone = () => document.documentElement.dataset.zone; // "utc" or "local"

/** `2026-11-22 16:50:45.123456`, in the zone that is shown. */
export function timeText(iso) {
  const time = new Date(iso);
  const shift = zone() === "utc" ? 0 : time.getTimezoneOffset() * 60e3;
  const fraction = /\.(\d+)/.exec(iso)?.[1] ?? "";
  return `${new Date(time - shift).toISOString().slice(0, 19).replace("T", " ")}.${fraction.padEnd(6, "0").slice(0, 6)}`;
}

/** A time of which the characters `from` to `to` are shown; it follows the zone. */
export function timeNode(iso, from = 0, to = 23) {
  return tell(el("time", { datetime: iso, "data-part": `${from} ${to}` }));
}

function tell(node) {
  const text = timeText(node.dateTime);
  node.textContent = text.slice(...node.dataset.part.split(" "));
  node.title = `${text} ${zone() === "utc" ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone}`;
  return node;
}

/** Use another zone: "utc" or "local". */
export function setZone(name) {
  document.documentElement.dataset.zone = name;
  document.querySelectorAll("time[data-part]").forEach(tell);
}
