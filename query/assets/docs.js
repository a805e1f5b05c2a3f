// The documentation of the API, drawn from /openapi.json: /docs to try each route, /redoc to read them all.
"use strict";

const reading = location.pathname === "/redoc";
let definitions = {};

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const resolve = (schema) => (schema.$ref ? definitions[schema.$ref.split("/").pop()] : schema);

/** A schema in a few words: `string (date-time) or null`. */
function words(given) {
  const schema = resolve(given);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.anyOf) return schema.anyOf.map(words).join(" or ");
  if (schema.type === "array") return `array of ${words(schema.items ?? {})}`;
  const limits = [["minimum", "at least"], ["maximum", "at most"]]
    .filter(([key]) => schema[key] !== undefined).map(([key, text]) => `${text} ${schema[key]}`);
  const inner = [schema.format, ...limits].filter(Boolean).join(", ");
  return (schema.type ?? "anything") + (inner ? ` (${inner})` : "");
}

/** The words for a parameter: that it can be left out need not be said, what it is then must. */
function kind(schema) {
  const inner = schema.anyOf ? schema.anyOf.filter((each) => each.type !== "null").map(words).join(" or ") : words(schema);
  return inner + (schema.default === undefined || schema.default === null ? "" : `, default ${schema.default}`);
}

/** A schema as the outline of its JSON, with what each key means behind it. */
function outline(given, indent = "") {
  const schema = resolve(given);
  if (schema.type === "array" && resolve(schema.items ?? {}).properties) {
    return `[\n${indent}  ${outline(schema.items, indent + "  ")}\n${indent}]`;
  }
  if (!schema.properties) return words(given);
  const required = schema.required ?? [];
  const lines = Object.entries(schema.properties).map(([name, value]) => {
    const notes = [required.includes(name) ? null : "optional", value.description].filter(Boolean).join(": ");
    const inner = value.anyOf?.length === 2 && value.anyOf[1].type === "null" ? value.anyOf[0] : value;
    const text = inner === value || !resolve(inner).properties ? words(value) : outline(inner, indent + "  ");
    const shape = resolve(value).type === "array" || resolve(value).properties ? outline(value, indent + "  ") : text;
    return `${indent}  "${name}": ${shape}${notes ? `  // ${notes}` : ""}`;
  });
  return `{\n${lines.join("\n")}\n${indent}}`;
}

/** A value to start from when trying a route. */
function example(given) {
  const schema = resolve(given);
  if (schema.default !== undefined) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return example(schema.anyOf[0]);
  if (schema.type === "array") return [example(schema.items ?? {})];
  if (schema.properties) {
    return Object.fromEntries((schema.required ?? []).map((key) => [key, example(schema.properties[key])]));
  }
  if (schema.format === "date-time") return new Date().toISOString();
  return { integer: 0, number: 0, boolean: false, object: {}, null: null }[schema.type] ?? "text";
}

function input(parameter) {
  const schema = parameter.schema.anyOf ? resolve(parameter.schema.anyOf[0]) : resolve(parameter.schema);
  const label = { name: parameter.name, "data-in": parameter.in, "aria-label": parameter.name };
  if (schema.enum) return el("select", label, el("option", { value: "" }, ""), ...schema.enum.map((each) => el("option", {}, each)));
  return el("input", { ...label, placeholder: parameter.schema.default ?? "", spellcheck: "false", autocomplete: "off" });
}

function parameterTable(parameters) {
  const rows = parameters.map((each) => el("tr", {},
    el("td", {}, each.name + (each.required ? " *" : "")),
    el("td", {}, each.description ?? "", el("div", { class: "type" }, kind(each.schema))),
    reading ? "" : el("td", { class: "wide" }, input(each)),
  ));
  const heads = ["Parameter", "Meaning", ...(reading ? [] : ["Value"])].map((each) => el("th", { scope: "col" }, each));
  return el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
}

function responses(operation) {
  return Object.entries(operation.responses).flatMap(([status, answer]) => {
    const kinds = Object.entries(answer.content ?? {});
    const heading = el("h4", {}, `${status}: ${answer.description} ${kinds.map(([kind]) => kind).join(", ")}`);
    const schemas = kinds.filter(([, content]) => content.schema);
    if (!reading && status !== "200") return [heading];
    return [heading, ...schemas.map(([, content]) => el("pre", { tabindex: 0 }, outline(content.schema)))];
  });
}

function body(operation) {
  const content = operation.requestBody?.content;
  if (!content) return [];
  const [kind, { schema }] = Object.entries(content)[0];
  const heading = el("h4", {}, `Body: ${Object.keys(content).join(", ")}`);
  const shape = schema ? [el("pre", { tabindex: 0 }, outline(schema))] : [];
  if (reading) return [heading, ...shape];
  const text = el("textarea", { "aria-label": "Body", "data-kind": kind, spellcheck: "false" });
  text.value = schema ? JSON.stringify(example(schema), null, 2) : "";
  return [heading, ...shape, el("h4", {}, "Value"), text];
}

function trial(method, path) {
  const button = el("button", { type: "submit" }, "Send");
  const told = el("h4", { role: "status" });
  const output = el("pre", { tabindex: 0, hidden: true });
  return { nodes: [el("div", { class: "send" }, button), told, output], send: (form) => send(form, method, path, told, output) };
}

async function send(form, method, path, told, output) {
  const query = new URLSearchParams();
  for (const field of form.querySelectorAll("[data-in]")) {
    if (field.dataset.in === "path") path = path.replace(`{${field.name}}`, encodeURIComponent(field.value));
    else if (field.value) query.set(field.name, field.value);
  }
  const text = form.querySelector("textarea");
  const options = { method, headers: { Accept: "application/json" } };
  if (text) Object.assign(options, { body: text.value, headers: { ...options.headers, "Content-Type": text.dataset.kind } });
  const address = path + (query.size ? `?${query}` : "");
  const began = performance.now();
  try {
    const answer = await fetch(address, options);
    const content = await answer.text();
    told.textContent = `${method} ${address}: ${answer.status} ${answer.statusText}, ${Math.round(performance.now() - began)} ms`;
    output.textContent = pretty(content).slice(0, 100_000);
  } catch {
    told.textContent = "The service does not answer.";
    output.textContent = "";
  }
  output.hidden = !output.textContent;
}

function pretty(text) {
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // metrics and pages are no JSON
  }
  // What changes the direction of a line would let a record forge the lines around it.
  return shown.replace(/[\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g,
    (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function route(path, method, operation) {
  const inside = el("form", { class: "inside" });
  const details = el("details", { class: "route", id: operation.operationId, open: reading },
    el("summary", {}, el("span", { class: `method ${method}` }, method.toUpperCase()), el("strong", {}, path),
      el("span", { class: "summary" }, operation.summary)), inside);
  const draw = () => {
    if (inside.firstChild) return;
    if (operation.parameters.length) inside.append(parameterTable(operation.parameters));
    inside.append(...body(operation));
    if (!reading) {
      const { nodes, send: act } = trial(method.toUpperCase(), path);
      inside.append(...nodes);
      inside.addEventListener("submit", (event) => {
        event.preventDefault();
        act(inside);
      });
    }
    inside.append(...responses(operation));
  };
  if (reading) draw();
  else details.addEventListener("toggle", draw);
  return details;
}

function openNamed() {
  const named = document.getElementById(location.hash.slice(1));
  if (named?.tagName === "DETAILS") {
    named.open = true;
    named.scrollIntoView();
  }
}

async function draw() {
  const documented = await (await fetch("/openapi.json")).json();
  definitions = documented.components.schemas;
  document.getElementById("version").textContent = `API ${documented.info.version}`;
  document.querySelector(`.bar nav a[href="${location.pathname}"]`)?.setAttribute("aria-current", "page");
  document.getElementById("routes").replaceChildren();
  const groups = new Map();
  for (const [path, methods] of Object.entries(documented.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      groups.set(tag, [...(groups.get(tag) ?? []), [path, method, operation]]);
    }
  }
  for (const [tag, routes] of groups) {
    document.getElementById("routes").append(el("h2", {}, tag), ...routes.map((each) => route(...each)));
    document.getElementById("contents").append(el("h2", {}, tag), ...routes.map(([path, method, operation]) =>
      el("a", { href: `#${operation.operationId}` }, el("span", { class: `method ${method}` }, method.toUpperCase()), path)));
  }
  window.addEventListener("hashchange", openNamed);
  openNamed();
}
draw();
