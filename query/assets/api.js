// Asking the service: answers, refusals and streams. The one place that knows of tokens.

import { $ } from "./dom.js";

const PATIENCE = 60e3;

/** A refusal or a failure, in words for the person who asked. */
export class AskError extends Error {
  constructor(message, status = 0, position = null) {
    super(message);
    this.status = status;
    this.position = position; // where in the query, in characters; null if it is not about that
  }
}

let login = null;

/** Ask the person for a token, once for all who wait for it. */
function newToken() {
  login ??= new Promise((resolve, reject) => {
    $("login").addEventListener("close", () => {
      login = null;
      if ($("login").returnValue !== "use") return reject(new AskError("This service wants a token.", 401));
      sessionStorage.setItem("token", $("token").value.trim());
      $("token").value = "";
      resolve();
    }, { once: true });
    $("login").returnValue = "";
    $("login").showModal();
  });
  return login;
}

async function refusal(answer) {
  const detail = (await answer.json().catch(() => null))?.detail;
  if (!Array.isArray(detail)) return new AskError(String(detail ?? `The service answered ${answer.status}.`), answer.status);
  const position = detail.find((each) => each.type === "query_syntax")?.ctx?.position ?? null;
  return new AskError(detail.map((each) => each.msg).join("\n"), answer.status, position);
}

async function request(address, headers, signal) {
  const token = sessionStorage.getItem("token");
  const answer = await fetch(address, { signal, headers: { ...headers, ...(token && { Authorization: `Bearer ${token}` }) } });
  if (answer.status === 401) {
    await newToken();
    return request(address, headers, signal);
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

/** Call it; failures of the network become words. An abort stays an AbortError. */
async function inWords(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name === "TimeoutError") throw new AskError(`No answer within ${PATIENCE / 1e3} seconds.`);
    throw error instanceof TypeError ? new AskError("The service does not answer.") : error;
  }
}

/** Numbers that JavaScript cannot hold, or would write in another way, stay as they were written. */
function exact(key, value, context) {
  const changed = typeof value === "number" && context && String(value) !== context.source && JSON.rawJSON;
  return changed ? JSON.rawJSON(context.source) : value;
}

/** Read records, or one. */
export const parseRecords = (text) => JSON.parse(text, exact);

/** Get JSON: its `body`, the address of the `next` page or null, a sentence on what is `missing` from it, and a `hint` on
 * what a query that found nothing may have meant. */
export function ask(address, signal, parse = JSON.parse) {
  const either = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]);
  return inWords(async () => {
    const answer = await request(address, { Accept: "application/json" }, either);
    const body = parse(await answer.text());
    signal.throwIfAborted(); // an abort that came just now must not show an old answer over a new one
    const link = /<([^>]+)>;\s*rel="next"/.exec(answer.headers.get("Link") ?? "");
    const next = link && new URL(link[1], location.href);
    return {
      body,
      next: next && next.pathname + next.search, // of this host, whatever name a proxy knows it by
      missing: answer.headers.get("X-Logagg-Incomplete"),
      hint: answer.headers.get("X-Logagg-Hint") ?? "",
    };
  });
}

/** Follow server-sent events after the one with id `last`: yields lists of `{id, event, data}` as they come, the first one with
 * the `hint` on what the query may have meant. */
export async function* follow(address, last, signal) {
  const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
  const answer = await inWords(() => request(address, headers, signal));
  yield [{ id: "", event: "hint", data: answer.headers.get("X-Logagg-Hint") ?? "" }];
  let rest = "";
  for await (const text of chunks(answer.body.pipeThrough(new TextDecoderStream()))) {
    const blocks = (rest + text).replace(/\r\n?/g, "\n").split("\n\n");
    rest = blocks.pop();
    yield blocks.map(event);
  }
}

async function* chunks(stream) {
  const reader = stream.getReader();
  for (let part = await inWords(() => reader.read()); !part.done; part = await inWords(() => reader.read())) yield part.value;
}

function event(block) {
  const found = { id: "", event: "", data: "" };
  for (const line of block.split("\n")) {
    const [, name, value] = /^(id|event|data): ?(.*)$/.exec(line) ?? [];
    if (name) found[name] += value;
  }
  return found;
}
