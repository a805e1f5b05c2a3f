// A record: a line in a list, its fields when it is opened, and its neighbours.

import { ask, parseRecords } from "./api.js";
import { $, button, el, levelClass, marked, plain, timeNode } from "./dom.js";
import { clear, fill } from "./panel.js";
import { attribute, standing, toggled, wordsOf } from "./query.js";
import { asked, changed, go } from "./state.js";

const SHOWN = 500; // characters of a message in its line, and fields of a record
const NEIGHBOURS = [10, 50, 200, 1000];
const FIELDS = ["level", "service", "host", "environment", "source", "facility", "trace_id", "span_id"];
const FACTS = ["timestamp", "received_at", "id"];

/** Return a function that makes lines of records for the question that is shown now; `opened` hears of those that are
 * opened (true) or closed (false). */
export function rows(opened = () => {}) {
  const words = wordsOf(asked("q"));
  return (record) => {
    const details = el("details", {}, line(record, words));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(inside(record));
      opened(details.open, record);
    });
    return el("li", { "data-id": record.id, class: levelClass(record.level) }, details);
  };
}

function line(record, words) {
  const message = record.message.length > SHOWN ? `${record.message.slice(0, SHOWN)} ...` : record.message;
  return el("summary", {},
    timeNode(record.timestamp),
    el("span", { class: "level" }, record.level),
    origin("host", record.host), origin("service", record.service),
    el("span", { class: "message" }, ...marked(message, words)));
}

/** A column that says where a record is from; what is absent leaves its place to the host on a narrow page. */
function origin(name, value) {
  const absent = value === null || value === undefined;
  const text = absent ? "-" : plain(value);
  return el("span", { class: absent ? `${name} absent` : name, title: absent ? `no ${name}` : `${name} ${text}` }, text);
}

function inside(record) {
  const raw = el("pre", { hidden: "", tabindex: "0", "aria-label": "The record as JSON" });
  const told = el("span", { role: "status" });
  const around = el("div", { class: "context" });
  const copy = async () => {
    raw.textContent = JSON.stringify(record, null, 2);
    raw.hidden = false;
    told.textContent = (await copied(raw)) ? "Copied." : "Marked: copy it by your keys.";
  };
  const link = async () => {
    raw.textContent = new URL(changed({ record: String(record.id) }), location.href).href;
    raw.hidden = false;
    told.textContent = (await copied(raw)) ? "Copied." : "Marked: copy it by your keys.";
  };
  return el("div", { class: "inside" },
    el("pre", { class: "whole", tabindex: "0", "aria-label": "Message" }, ...marked(record.message, wordsOf(asked("q")))),
    el("div", { class: "tools" },
      button("Context", () => context(record, around), { class: "to-context", title: "What came before and after (c)" }),
      record.trace_id ? button("Its trace", () => go({ q: toggled("", "trace_id", record.trace_id), view: "" })) : "",
      button("Copy JSON", copy), button("Copy link", link), told),
    raw, around, fields(record));
}

async function copied(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    return true;
  } catch { // no permission, or no HTTPS
    getSelection().selectAllChildren(node);
    return false;
  }
}

// ---- fields ----

function fields(record) {
  const found = FIELDS.filter((name) => record[name] !== null && record[name] !== undefined)
    .map((name) => field(name, name, record[name]));
  const attributes = Object.entries(record.attributes ?? {});
  for (const [path, value] of attributes.flatMap(([name, each]) => [...leaves(each, name)])) {
    if (found.length < SHOWN) found.push(field(path, attribute(path), value));
  }
  const facts = FACTS.map((name) => el("div", {}, el("dt", {}, name), el("dd", {}, name === "id"
    ? String(record.id) : timeNode(record[name], 0, 26))));
  return el("dl", {}, ...found, ...facts);
}

/** Yield paths and values of attributes; the values of a list each by itself. */
function* leaves(value, path) {
  const inner = value !== null && typeof value === "object" && !isNumber(value);
  if (!inner || !Object.keys(value).length) {
    if (value !== null) yield [path, value];
  } else if (!Array.isArray(value)) {
    for (const [name, each] of Object.entries(value)) yield* leaves(each, path ? `${path}.${name}` : name);
  } else if (value.every((each) => each === null || typeof each !== "object" || isNumber(each))) {
    for (const each of value) yield* leaves(each, path);
  } else {
    yield [path, value];
  }
}

const isNumber = (value) => Boolean(JSON.isRawJSON?.(value)); // one that JavaScript cannot hold

function field(name, term, value) {
  const isText = typeof value !== "object" || isNumber(value);
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 1);
  const buttons = isText ? [choice(term, text, false, name), choice(term, text, true, name)] : [];
  return el("div", {}, el("dt", {}, ...buttons, el("span", {}, plain(name))), el("dd", {}, plain(text)));
}

/** A button that puts a value into the query, or its exclusion; or takes it out again. */
export function choice(term, value, out, name = term) {
  const on = standing(asked("q"), term, value) === (out ? -1 : 1);
  const told = `${out ? "Without" : "Only with"} ${plain(name)} ${value === null ? "none" : plain(value).slice(0, 80)}`;
  return button(out ? "−" : "+", () => go({ q: toggled($("q").value, term, value, out) }),
    { class: "choice", "aria-pressed": String(on), "aria-label": told, title: told });
}

// ---- context ----

async function context(record, panel, size = 0) {
  const { signal } = new AbortController();
  const n = NEIGHBOURS[size];
  await fill(panel, signal, async () => {
    const { body } = await ask(`/logs/${record.id}/context?before=${n}&after=${n}`, signal, parseRecords);
    const row = rows();
    const here = row(record);
    here.setAttribute("aria-current", "true");
    const more = size + 1 < NEIGHBOURS.length && Math.max(body.before.length, body.after.length) >= n;
    const list = el("ol", { class: "list", "aria-label": "Records of the same source around this one, oldest first" },
      ...body.before.map(row), here, ...body.after.map(row));
    const focused = panel.contains(document.activeElement) ? document.activeElement.closest("[data-id]").dataset.id : null;
    panel.replaceChildren(el("h3", {}, "Before and after, of the same host, service and source"), list);
    if (focused) list.querySelector(`:scope > [data-id="${focused}"] summary`).focus({ preventScroll: true });
    if (more) panel.append(button("More", () => context(record, panel, size + 1)));
    clear(panel);
  });
}
