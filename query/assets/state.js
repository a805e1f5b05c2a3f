// The question stands in the address, and nowhere else: q, since (or start and end), view, record, fresh. So it can be
// shared, and the back button works.

export const DEFAULT_SINCE = "24h";
const UNITS = { m: 60e3, h: 3600e3, d: 86400e3 };
const FORM = /^(\d{1,6})([mhd])$/;

let shown = () => {};

/** Say what shows the question; it is called whenever that changes. */
export function onChange(show) {
  shown = show;
  window.addEventListener("popstate", show);
}

export const asked = (name) => new URLSearchParams(location.search).get(name) ?? "";
export const isAbsolute = () => Boolean(asked("start") || asked("end"));
export const since = () => (isAbsolute() ? "custom" : asked("since") || DEFAULT_SINCE);

/** The address of this question with changes; an empty value takes a parameter away. */
export function changed(changes) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  return `${location.pathname}?${query}`;
}

/** Ask another question. It has other records, so none of them stays open. */
export function go(changes, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", changed({ record: "", ...changes }));
  shown();
}

/** Note which record is open, without asking anything. */
export function openRecord(id) {
  if (asked("record") !== id) history.replaceState(null, "", changed({ record: id }));
}

/** Milliseconds since 1970 where the range begins and ends; null where it is open. */
export function range(now = Date.now()) {
  if (isAbsolute()) return [Date.parse(asked("start")) || null, Date.parse(asked("end")) || null];
  const [, length, unit] = FORM.exec(since()) ?? [];
  return [length ? now - length * UNITS[unit] : null, null];
}

/** The filters of the HTTP API for the range, and for this query text. */
export function filters(q = asked("q")) {
  const wanted = new URLSearchParams();
  if (q) wanted.set("q", q);
  const [start] = range();
  if (asked("start") || start) wanted.set("start_time", asked("start") || new Date(start).toISOString());
  if (asked("end")) wanted.set("end_time", asked("end"));
  return wanted;
}
