// The text of a query, edited by clicks: `field=value` is put in, taken out, or turned into `field!=value`.

const QUOTED = '"(?:[^"\\\\]|\\\\.)*"';
const NAME = "[\\p{L}_@][\\p{L}\\p{N}_.@$/-]*";
const OPERATOR = "(?:!=|<=|>=|[=<>]|:(?!:|//))";
const VALUE = `(?:${QUOTED}|/(?:[^/\\\\]|\\\\.)*/i?(?=[\\s()]|$)|[^\\s()"]+)`;
const TOKEN = new RegExp(`\\s+|[()-]|(?:(?:${NAME}|${QUOTED})${OPERATOR})?${VALUE}`, "suy");
const CONDITION = new RegExp(`^(?:${NAME}|${QUOTED})${OPERATOR}`, "su");
const COLUMNS = new Set(["id", "timestamp", "received_at", "level", "severity", "facility", "environment", "host",
  "service", "source", "message", "trace_id", "span_id"]);
const FOREIGN = new Set(["_msg", "_time", "_stream", "_exists_"]); // fields of other languages: errors here
const ESCAPES = { "\\": "\\\\", '"': '\\"', "*": "\\*", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

const escaped = (text) => text.replace(/[\\"*\u0000-\u001f]/g,
  (each) => ESCAPES[each] ?? `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
const quote = (text) => `"${escaped(text)}"`;
const value = (text) => (/^[\p{L}\p{N}_][\p{L}\p{N}_.-]*$/u.test(text) ? text : quote(text));
const named = (name) => (new RegExp(`^${NAME}$`, "u").test(name) ? name : quote(name));

/** How an attribute is called in a query: its path, marked where that would be something else. */
export const attribute = (path) => {
  const marked = COLUMNS.has(path) || FOREIGN.has(path) || path.startsWith("attributes.");
  return marked ? `attributes.${path}` : path;
};

/** The pieces of a query, with the white space between them; null where a quote or an expression has no end. */
function tokens(text) {
  const found = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const match = TOKEN.exec(text);
    if (!match) return null;
    found.push(match[0]);
  }
  return found;
}

/** The query as lists of terms, between which "or" stands; null if it is no query. */
function parsed(text) {
  const lists = [[]];
  let [term, depth] = ["", 0];
  const close = () => term && lists.at(-1).push(term) && (term = "");
  for (const token of tokens(text) ?? [")"]) {
    depth += (token === "(") - (token === ")");
    if (depth < 0) return null;
    const [space, word] = [!token.trim(), token.toLowerCase()];
    if (depth > 0 || (!space && (term || !["or", "and"].includes(word)))) term += token;
    else if (space && term.toLowerCase() === "not") term += " ";
    else close();
    if (word === "or" && !term) lists.push([]);
  }
  close();
  return depth ? null : lists;
}

/** What must all hold. */
function terms(text) {
  const lists = parsed(text);
  if (!lists) return [text.trim()];
  return lists.length === 1 ? lists[0] : [`(${text.trim()})`];
}

/** What of a term in parentheses may hold; a term without them is the only one. */
function alternatives(term) {
  const lists = /^\(.*\)$/s.test(term) ? parsed(term.slice(1, -1)) : null;
  return lists?.every((list) => list.length === 1) ? lists.flat() : [term];
}

function conditions(field, text) {
  const name = named(field);
  return text === null ? [`-${name}:*`, `${name}:*`] : [`${name}=${value(text)}`, `${name}!=${value(text)}`];
}

/** Sort the terms of a query: values of a field that are wanted, those that are not, and the rest. */
function sorted(text, field) {
  const name = named(field);
  const [any, none] = conditions(field, null).reverse();
  const found = { wanted: [], unwanted: [], rest: [] };
  for (const term of terms(text)) {
    const parts = alternatives(term);
    if (parts.every((part) => part.startsWith(`${name}=`) || part === none)) found.wanted.push(...parts);
    else if (term.startsWith(`${name}!=`) || term === any) found.unwanted.push(term);
    else found.rest.push(term);
  }
  return found;
}

function joined({ wanted, unwanted, rest }) {
  return [...rest, ...(wanted.length > 1 ? [`(${wanted.join(" or ")})`] : wanted), ...unwanted].join(" ");
}

/** Whether a value of a field (null: none at all) is wanted (1), unwanted (-1), or neither (0). */
export function standing(text, field, what) {
  const [is, isNot] = conditions(field, what);
  const { wanted, unwanted } = sorted(text, field);
  return wanted.includes(is) - unwanted.includes(isNot);
}

/** The query with a value put in or, if it was, taken out again; `out` does the same to its exclusion. */
export function toggled(text, field, what, out = false) {
  const [is, isNot] = conditions(field, what);
  const { wanted, unwanted, rest } = sorted(text, field);
  const flip = (list, each, on) => (!on || list.includes(each) ? list.filter((one) => one !== each) : [...list, each]);
  return joined({ wanted: flip(wanted, is, !out), unwanted: flip(unwanted, isNot, out), rest });
}

/** The query without what it says of the values of a field, to count those that could be wanted too. */
export const without = (text, field) => joined({ ...sorted(text, field), wanted: [], unwanted: [] });

/** A term that finds the messages of a template, in which `<*>` stands for what varies. */
export function ofTemplate(template) {
  const parts = template.split(/<\*>|\s{2,}/).map((part) => escaped(part)).filter(Boolean);
  return `message:"*${parts.map((part) => `${part}*`).join("")}"`;
}

/** An expression (with one group) for the words that a query looks for anywhere; null where it has none. */
export function wordsOf(text) {
  const found = new Set();
  let before = "";
  for (const token of tokens(text) ?? []) {
    const negated = before === "-" || before.toLowerCase() === "not";
    const isText = !CONDITION.test(token) && !token.startsWith("/") && !["and", "or", "not"].includes(token.toLowerCase());
    if (isText && !negated) for (const word of token.match(/[\p{L}\p{N}_*]+/gu) ?? []) found.add(word);
    if (token.trim()) before = token;
  }
  const words = [...found].filter((word) => /[^*]/.test(word)).map((word) => word.replaceAll("*", "[\\p{L}\\p{N}_]*"));
  return words.length ? new RegExp(`(?<![\\p{L}\\p{N}_])(${words.join("|")})(?![\\p{L}\\p{N}_])`, "giu") : null;
}
