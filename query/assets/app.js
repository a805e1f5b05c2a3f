// The page, from top to bottom: what is asked stands in the address (state.js), and each panel shows its part of it.

import { $, setZone, timeText, zone } from "./dom.js";
import * as facets from "./facets.js";
import * as histogram from "./histogram.js";
import * as keys from "./keys.js";
import { fill } from "./panel.js";
import * as patterns from "./patterns.js";
import * as results from "./results.js";
import { asked, changed, go, isAbsolute, onChange, range, since } from "./state.js";
import * as tail from "./tail.js";

const VIEWS = ["live", "patterns"];
let running = new AbortController();

const view = () => (VIEWS.includes(asked("view")) ? asked("view") : "");

function say(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

// ---- showing the question ----

async function show() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  showForm();
  if (view() === "live") {
    facets.load(signal, Promise.resolve(0));
    await fill($("live"), signal, () => tail.run(signal, say), refused);
    return;
  }
  say("Searching ...");
  const shown = view() === "patterns" ? patterns.load(signal, say, refused) : showRecords(signal);
  const newest = view() === "patterns" ? undefined : await shown; // the records first, the counts after them
  if (signal.aborted || !$("problem").hidden) return;
  const read = histogram.load(signal, newest);
  facets.load(signal, Promise.all([read, shown]).then(([batches]) => batches));
}

async function showRecords(signal) {
  const began = performance.now();
  let newest;
  const found = await fill($("records"), signal, async () => { newest = await results.load(signal); }, refused);
  if (signal.aborted) return newest;
  const took = Math.round(performance.now() - began);
  say(!found ? "" : newest ? `Newest first, found in ${took} ms.` : "Nothing found.");
  return newest;
}

/** Show at the query what is wrong with it. */
function refused(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
  $("q").setAttribute("aria-invalid", "true");
  $("results").classList.add("stale");
  say("");
  const place = [...$("q").value].slice(0, error.position).join("").length;
  $("q").focus();
  $("q").setSelectionRange(place, place);
}

function showForm() {
  const q = asked("q");
  document.title = q ? `${q} - logagg` : "logagg";
  document.body.dataset.view = view() || "records";
  for (const name of ["records", ...VIEWS]) $(name).hidden = name !== document.body.dataset.view;
  $("over-time").hidden = view() === "live";
  for (const link of $("views").children) {
    link.href = changed({ view: link.dataset.view, record: "" });
    if (link.dataset.view === view()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("q").value = q;
  $("q").removeAttribute("aria-invalid");
  $("problem").hidden = true;
  $("since").value = since();
  showRange();
}

function showRange() {
  $("absolute").hidden = $("since").value !== "custom";
  const [start, end] = range();
  const text = (time) => (time ? timeText(new Date(time).toISOString()).slice(0, 19).replace(" ", "T") : "");
  $("start").value = text(start);
  $("end").value = text(end);
}

// ---- hands ----

function search(event) {
  event.preventDefault();
  go({ q: $("q").value.trim() });
}

function chooseRange() {
  if ($("since").value === "custom") return showRange();
  return go({ since: $("since").value, start: "", end: "" });
}

function typeRange() {
  const time = (text) => (text ? new Date(zone() === "utc" ? `${text}Z` : text).toISOString() : "");
  go({ start: time($("start").value), end: time($("end").value), since: "" });
}

/** Ask for a range three times as long; one open at its end goes to the next longer one of the list. */
function widen() {
  const [start, end] = range();
  if (isAbsolute() && start && end) {
    const more = Math.max(1000, end - start);
    return go({ start: new Date(start - more).toISOString(), end: new Date(end + more).toISOString() });
  }
  const options = [...$("since").options].map((each) => each.value);
  const longer = isAbsolute() ? "all" : options[Math.min(options.indexOf(since()) + 1, options.indexOf("all"))];
  return go({ since: longer, start: "", end: "" });
}

function showZone(name) {
  setZone(name);
  $("zone").textContent = name === "utc" ? "UTC" : "Local";
  $("zone").title = `Times are ${name === "utc" ? "UTC" : "those of this computer"} (u)`;
}

function switchZone() {
  const name = zone() === "utc" ? "local" : "utc";
  try {
    localStorage.setItem("zone", name);
  } catch { /* storage is forbidden: until the page is left */ }
  showZone(name);
  showRange();
}

function keptZone() {
  try {
    return localStorage.getItem("zone") === "utc" ? "utc" : "local";
  } catch {
    return "local";
  }
}

showZone(keptZone());
$("search").addEventListener("submit", search);
$("since").addEventListener("change", chooseRange);
for (const name of ["start", "end"]) $(name).addEventListener("change", typeRange);
$("wider").addEventListener("click", widen);
$("zone").addEventListener("click", switchZone);
$("views").addEventListener("click", (event) => {
  if (!event.target.dataset.view?.length && event.target.dataset.view !== "") return;
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go({ view: event.target.dataset.view });
});
$("filters").open = matchMedia("(min-width: 50rem)").matches;
for (const part of [results, histogram, patterns, keys]) part.start();
tail.start(say);
onChange(show);
show();
