// The page. The address holds the whole question (q, since, start, end, level, service), so that it can be shared and
// the back button works. What comes from records reaches the page only as text nodes, never as markup.
"use strict";

const LEVELS = ["EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"];
const UNITS = { m: 60e3, h: 3600e3, d: 86400e3 };
const BINS = 60;
const WIDTHS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat();
const records = (count) => `${number.format(count)} ${count === 1 ? "record" : "records"}`;

let running = new AbortController();
let next = null; // the address of the next older page

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const levelClass = (level) => (LEVELS.includes(level) ? `level-${level}` : "");

/** Text with what would act on the line instead of standing in it (controls, changes of direction) written as \\u202e. */
function plain(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g,
    (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function shownTime(iso) {
  const time = new Date(iso);
  const two = (value, width = 2) => String(value).padStart(width, "0");
  return `${two(time.getFullYear(), 4)}-${two(time.getMonth() + 1)}-${two(time.getDate())} ` +
    `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${two(time.getMilliseconds(), 3)}`;
}

// ---- the question, in the address ----

const asked = () => new URLSearchParams(location.search);

function changed(changes) {
  const query = asked();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  return `?${query}`;
}

function go(address) {
  history.pushState(null, "", address);
  show();
}

/** A link that asks another question without loading the page again. */
function link(changes, attributes, ...children) {
  return follow(el("a", { href: changed(changes), ...attributes }, ...children));
}

function follow(node) {
  node.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(node.getAttribute("href"));
  });
  return node;
}

/** The filters of the API for the address; `without` leaves one out, so that a facet shows its other values too. */
function filters(without) {
  const query = asked();
  const wanted = new URLSearchParams();
  for (const name of ["q", "level", "service"]) {
    if (query.get(name) && name !== without) wanted.set(name, query.get(name));
  }
  const since = /^(\d+)([mhd])$/.exec(query.get("since") || "");
  if (since) wanted.set("start_time", new Date(Date.now() - since[1] * UNITS[since[2]]).toISOString());
  if (query.get("start")) wanted.set("start_time", query.get("start"));
  if (query.get("end")) wanted.set("end_time", query.get("end"));
  return wanted;
}

// ---- asking ----

async function get(address, signal) {
  const answer = await fetch(address, { signal, headers: { Accept: "application/json" } });
  const body = await answer.json();
  const missing = answer.headers.get("X-Logagg-Incomplete");
  if (answer.ok && missing && !signal.aborted) incomplete(missing);
  if (answer.ok) return { body, links: answer.headers.get("Link") };
  const detail = body.detail;
  throw new Error(Array.isArray(detail) ? detail.map((each) => each.msg).join("\n") : String(detail));
}

function incomplete(missing) {
  $("problem").firstChild.textContent = "Not all records could be read; what is here is the rest.";
  $("problem").lastChild.textContent = missing;
  $("problem").hidden = false;
}

function report(error) {
  if (error.name === "AbortError") return;
  const [first, ...rest] = (error instanceof TypeError ? "The service does not answer." : error.message).split("\n");
  $("problem").firstChild.textContent = first;
  $("problem").lastChild.textContent = rest.join("\n"); // the query, and a caret under the place
  $("problem").hidden = false;
  $("status").textContent = "";
  $("results").classList.add("stale");
  $("older").hidden = true;
}

async function show() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  $("problem").hidden = true;
  $("status").textContent = "Searching ...";
  $("q").value = asked().get("q") || "";
  $("since").value = asked().get("since") || "";
  document.title = asked().get("q") ? `${asked().get("q")} - logagg` : "logagg";
  const began = performance.now();
  try {
    await showRecords(signal, began); // first what is looked for, the counts after it
    await Promise.all([
      showFacet("level", "levels", signal),
      showFacet("service", "services", signal),
      showHistogram(signal),
    ]);
  } catch (error) {
    report(error);
  }
}

// ---- records ----

async function showRecords(signal, began) {
  const query = filters();
  query.set("limit", "100");
  const { body, links } = await get(`/logs?${query}`, signal);
  $("results").replaceChildren(...body.map(row));
  $("results").classList.remove("stale");
  older(links);
  const took = Math.round(performance.now() - began);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const range = asked().get("since") || asked().get("start") || asked().get("end");
  $("status").textContent = body.length
    ? `Newest first, times in ${zone}. Found in ${took} ms.`
    : range ? "No record matches in this time range." : "No record matches.";
}

function older(links) {
  const found = /<([^>]+)>;\s*rel="next"/.exec(links || "");
  const address = found && new URL(found[1], location.href);
  next = address && address.pathname + address.search; // of this host, whatever name a proxy knows it by
  $("older").hidden = !next;
}

async function showOlder() {
  if (!next) return;
  $("older").disabled = true;
  try {
    const { body, links } = await get(next, running.signal);
    const rows = body.map(row);
    $("results").append(...rows);
    if (rows.length) rows[0].querySelector("summary").focus();
    older(links);
  } catch (error) {
    report(error);
  } finally {
    $("older").disabled = false;
  }
}

function row(record) {
  const details = el("details", {}, el("summary", {},
    el("time", { datetime: record.timestamp, title: record.timestamp }, shownTime(record.timestamp)),
    el("span", { class: `level ${levelClass(record.level)}` }, record.level),
    el("span", { class: "service" }, plain(record.service ?? "-")),
    el("span", { class: "message" }, plain(record.message)),
  ));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(fields(record));
  });
  return el("li", {}, details);
}

function fields(record) {
  const list = el("dl");
  const { message, attributes, ...columns } = record;
  for (const [name, value] of [...Object.entries(columns), ...Object.entries(attributes ?? {})]) {
    if (value === null) continue;
    list.append(el("dt", {}, plain(name)), el("dd", {}, plain(typeof value === "string" ? value : JSON.stringify(value, null, 1))));
  }
  return list;
}

// ---- counts ----

async function showFacet(name, id, signal) {
  const query = filters(name);
  query.set("by", name);
  const { body } = await get(`/logs/aggregations?${query}`, signal);
  const chosen = asked().get(name);
  const order = name === "level" ? (a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level) : () => 0;
  $(id).replaceChildren(...body.filter((each) => each[name] !== null).sort(order).slice(0, 50).map((each) => {
    const value = each[name];
    const on = value === chosen;
    return el("li", {}, link({ [name]: on ? null : value }, { "aria-current": on ? "true" : null, title: value },
      el("span", { class: `value ${name === "level" ? levelClass(value) : ""}` }, plain(value)),
      el("span", { class: "count" }, number.format(each.count))));
  }));
  const any = ["level", "service", "start", "end"].some((each) => asked().get(each));
  $("chosen").replaceChildren(...(any ? [link({ level: null, service: null, start: null, end: null }, {}, "Clear filters")] : []));
}

async function showHistogram(signal) {
  const query = filters();
  const from = Date.parse(query.get("start_time")), to = Date.parse(query.get("end_time")) || Date.now();
  if (from) {
    const least = (to - from) / 1000 / BINS;
    query.set("interval", String(WIDTHS.find((width) => width >= least) ?? Math.ceil(least / 86400) * 86400));
  }
  const { body } = await get(`/logs/histogram?${query}`, signal);
  const { bins, interval_seconds: width } = body;
  $("over-time").hidden = !bins.length;
  if (!bins.length) return;
  const most = Math.max(1, ...bins.map((bin) => bin.total));
  $("histogram").setAttribute("viewBox", `0 0 ${bins.length * 10} 100`);
  $("histogram").replaceChildren(...bins.map((bin, place) => bar(bin, place, width, most)));
  $("from").textContent = shownTime(body.start).slice(0, 19);
  $("to").textContent = shownTime(body.end).slice(0, 19);
  $("width").textContent = `${records(body.total)}, ${span(width)} a bar`;
}

function bar(bin, place, width, most) {
  const parts = [];
  let top = 100;
  for (const level of [...LEVELS].filter((each) => bin.levels[each])) {
    const height = Math.max(1, (bin.levels[level] / most) * 96);
    top -= height;
    parts.push(svg("rect", { class: levelClass(level), x: place * 10 + 1, y: top, width: 8, height }));
  }
  const start = new Date(bin.start);
  const end = new Date(start.getTime() + width * 1000 - 1).toISOString().replace("Z", "999Z"); // to the microsecond
  const told = `${shownTime(bin.start).slice(0, 19)}: ${records(bin.total)}`;
  const href = changed({ start: start.toISOString(), end, since: null });
  const children = [svg("title", {}, told), svg("rect", { class: "ground", x: place * 10, y: 0, width: 10, height: 100 })];
  if (!bin.total) return svg("g", {}, ...children);
  return follow(svg("a", { href, "aria-label": told }, ...children, ...parts));
}

function span(seconds) {
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds % length === 0) return `${seconds / length} ${unit}`;
  }
  return `${seconds} s`;
}

// ---- hands ----

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const since = $("since").value;
  const range = since === (asked().get("since") || "") ? {} : { start: null, end: null };
  go(changed({ q: $("q").value.trim(), since, ...range }));
});
$("since").addEventListener("change", () => $("search").requestSubmit());
$("older").addEventListener("click", showOlder);
window.addEventListener("popstate", show);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    $("q").select();
  }
});
show();
