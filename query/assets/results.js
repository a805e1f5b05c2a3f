// The records that match, newest first: a few at once, more as one scrolls.

import { ask, parseRecords } from "./api.js";
import { $, button, el, timeNode } from "./dom.js";
import { fail, fill, incomplete } from "./panel.js";
import { rows } from "./record.js";
import { asked, filters, go, isAbsolute, openRecord, since } from "./state.js";

const FIRST = 50;
const PAGE = 200;
const BY_SCROLLING = 5000; // records that are loaded without a click
const AGAIN = 3000; // milliseconds after which an empty store is looked at again

let next = null;
let loading = null; // the signal of the question that is shown

/** Show the first records, and return the newest; undefined if there is none. Raises AskError. */
export async function load(signal) {
  if (loading !== signal) $("empty").hidden = true; // another question; what an empty store says stays while it is asked again
  loading = signal;
  next = null;
  $("older").hidden = true;
  $("results").classList.add("stale");
  const query = filters();
  query.set("limit", FIRST);
  const found = await ask(`/logs?${query}`, signal, parseRecords);
  $("results").classList.remove("stale");
  $("results").replaceChildren();
  add(found);
  if (found.body.length) $("empty").hidden = true;
  else await nothing(signal, found.hint);
  linked(signal);
  return found.body[0];
}

/** Note in the address which record is open. Of one that another closed, this is told after the other was opened. */
function note(open, { id }) {
  if (open) openRecord(String(id));
  else if (asked("record") === String(id)) openRecord("");
}

function add({ body, next: following, missing }) {
  const made = body.map(rows(note));
  for (const each of made) each.firstChild.name = "record"; // one of them open at a time
  $("results").append(...made);
  next = following;
  $("older").hidden = !next;
  incomplete($("records"), missing);
  return made;
}

async function older() {
  if (!next || $("older").disabled) return;
  const signal = loading;
  const address = new URL(next, location.href);
  address.searchParams.set("limit", PAGE);
  const byKeys = document.activeElement === $("older"); // which loses the focus when it is disabled
  $("older").disabled = true;
  const loaded = await fill($("records"), signal, async () => {
    const [first] = add(await ask(address.pathname + address.search, signal, parseRecords));
    if (byKeys && document.activeElement === document.body) first?.querySelector("summary").focus({ preventScroll: true });
  });
  $("older").disabled = false;
  if (loaded) watch();
}

const watcher = new IntersectionObserver(([{ isIntersecting }]) => {
  if (isIntersecting && $("results").children.length < BY_SCROLLING && !$("records").querySelector(".failed")) older();
}, { rootMargin: "800px" });

/** Look, now and later, whether the end of the list comes near. */
function watch() {
  watcher.unobserve($("older"));
  watcher.observe($("older"));
}

export function start() {
  $("older").addEventListener("click", older);
  watch();
}

// ---- nothing ----

async function nothing(signal, hint) {
  const q = asked("q");
  const all = filters();
  all.delete("start_time");
  all.delete("end_time");
  all.set("limit", "1");
  const ranged = filters().has("start_time") || filters().has("end_time");
  const [newest] = ranged ? (await ask(`/logs?${all}`, signal)).body : [];
  const untouched = $("since").value === since(); // nobody is about to choose a range
  if (newest && !asked("since") && !isAbsolute() && untouched) go({ since: "all", record: asked("record") }, { replace: true });
  else if (newest) tell(el("p", {}, "No record in this range. The newest that matches is of ", timeNode(newest.timestamp), "."),
    button("Search all time", () => go({ since: "all", start: "", end: "" })));
  else if (q) tell(el("p", {}, "No record matches."), ...(hint ? [el("p", {}, hint)] : []));
  else welcome(signal);
}

function tell(...nodes) {
  $("empty").replaceChildren(...nodes);
  $("empty").hidden = false;
}

function welcome(signal) {
  const { origin, hostname } = location;
  if ($("empty").hidden) tell(
    el("h2", {}, "No records yet"),
    el("p", {}, "Send a first one; it appears here."),
    el("pre", {}, `curl ${origin}/ingest -d '{"message": "hello", "service": "demo"}'`),
    el("p", {}, "Lines of a file, or what a program prints:"),
    el("pre", {}, `logagg send app.log --service app --url ${origin}`),
    el("p", {}, "Syslog, if it listens where it does by default:"),
    el("pre", {}, `logger --server ${hostname} --port 5140 --udp hello`),
    el("p", {}, "Other senders (rsyslog, fluent-bit, OpenTelemetry, Loki, Elasticsearch ...) are at home here too: ",
      el("a", { href: "/docs" }, "see the API"), "."));
  const wait = setTimeout(() => load(signal).catch((error) => signal.aborted || fail($("records"), error, () => go({}))), AGAIN);
  signal.addEventListener("abort", () => clearTimeout(wait));
}

// ---- the record of the address ----

async function linked(signal) {
  const id = asked("record");
  const panel = $("linked");
  panel.hidden = true;
  if (!/^\d{1,16}$/.test(id)) return;
  const here = $("results").querySelector(`[data-id="${id}"] details`);
  if (here) {
    here.open = true;
    here.scrollIntoView({ block: "center" });
    return;
  }
  panel.hidden = false;
  panel.replaceChildren();
  await fill(panel, signal, async () => {
    const { body } = await ask(`/logs/${id}`, signal, parseRecords);
    const row = rows(note)(body);
    row.firstChild.name = "record";
    row.firstChild.open = true;
    panel.replaceChildren(el("h2", {}, "The record of this address"), el("ol", { class: "list" }, row));
  });
}
