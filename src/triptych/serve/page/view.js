// What a hit looks like. Texts of documents become text nodes only, never markup.

import { HEADS, partOf } from "./rank.js";

export const NAMES = { dense: "Meaning", lexical: "Words", multi: "Passages" };
const HINTS = {
  dense: "dense: one vector per text",
  lexical: "lexical: one weight per token",
  multi: "multi-vector: one vector per token",
};
const PLACES = ["path", "parent", "heading", "headings", "page", "passage", "url", "lang"];
const WORDS = 12;

/** An element: attributes, then children; strings become text. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** One hit of the list. */
export function hitItem(hit, number, weights, best) {
  const body = textOf(hit);
  const note = element("p", { class: "met", "aria-live": "polite" });
  const item = element(
    "li",
    { class: "hit", tabindex: "-1", "data-id": hit.id, "data-waiting": !hit.explanation },
    element(
      "div",
      { class: "head" },
      element("span", { class: "number", "aria-hidden": "true" }, String(number)),
      element("h2", { dir: "auto" }, titleOf(hit)),
      element("span", { class: "score", title: "Weighted sum" }, hit.score.toFixed(3)),
    ),
    placesOf(hit),
    barsOf(hit, weights, best),
    body.node,
    body.isLong ? opener(body.node) : null,
    ...matchesOf(hit, body, note),
    metadataOf(hit),
  );
  return item;
}

function titleOf(hit) {
  const title = hit.metadata.title;
  return typeof title === "string" && title.trim() ? title : hit.id;
}

function placesOf(hit) {
  const { path, passages } = hit.metadata;
  const useless = { parent: path !== undefined, passage: passages === 1 };
  const found = PLACES.filter((name) => (hit.metadata[name] ?? null) !== null && !useless[name]);
  if (!found.length) return null;
  return element(
    "ul",
    { class: "places", "aria-label": "Where it stands" },
    ...found.map((name) => element("li", { "data-place": name, dir: "auto" }, placeText(name, hit.metadata))),
  );
}

function placeText(name, metadata) {
  const value = metadata[name];
  const text = Array.isArray(value) ? value.join(" › ") : typeof value === "object" ? JSON.stringify(value) : String(value);
  if (name === "passage") return `passage ${text}${metadata.passages ? ` of ${metadata.passages}` : ""}`;
  return name === "page" ? `page ${text}` : text;
}

/** Three bars, each its part of the weighted sum, on one scale for all hits. */
function barsOf(hit, weights, best) {
  const scale = best > 0 ? 100 / best : 0;
  return element(
    "dl",
    { class: "bars" },
    ...HEADS.filter((head) => head in hit.scores).map((head) => {
      const part = Math.max(0, partOf(hit, weights, head));
      const bar = element("span", { class: "bar", "aria-hidden": "true" });
      bar.style.width = `${Math.min(100, part * scale).toFixed(2)}%`;
      const times = weights.usual && head === "lexical" ? "by the share of the query that it covers, cubed" : "";
      const title = `${HINTS[head]}: ${hit.scores[head].toFixed(4)} × ${weights[head] ?? 0} ${times} = ${part.toFixed(4)}`;
      return element(
        "div",
        { class: head, title },
        element("dt", {}, NAMES[head]),
        element("dd", {}, element("span", { class: "track" }, bar), element("output", {}, hit.scores[head].toFixed(3))),
      );
    }),
  );
}

/**
 * The text, with a mark for each of its tokens that a query token met or that both sides have.
 *
 * Positions count characters as Python does, so astral ones are one.
 */
function textOf(hit) {
  const characters = Array.from(hit.text);
  const spans = new Map();
  const note = ({ document_span: place }, kind) => {
    if (!place) return;
    const span = spans.get(place[0]) ?? { start: place[0], end: place[1], kinds: new Set() };
    span.kinds.add(kind);
    spans.set(place[0], span);
  };
  for (const word of hit.explanation?.words ?? []) note(word, "lexical");
  for (const token of hit.explanation?.tokens ?? []) note(token, "multi");
  const node = element("p", { class: "text", dir: "auto" });
  const marks = new Map();
  let at = 0;
  for (const span of [...spans.values()].sort((a, b) => a.start - b.start)) {
    if (span.start < at) continue; // tokens that share a character
    node.append(characters.slice(at, span.start).join(""));
    const mark = element("mark", { class: [...span.kinds].join(" ") }, characters.slice(span.start, span.end).join(""));
    marks.set(span.start, mark);
    node.append(mark);
    at = span.end;
  }
  node.append(characters.slice(at).join(""));
  return { node, marks, isLong: characters.length > 400 };
}

function opener(node) {
  node.classList.add("cut");
  const button = element("button", { type: "button", class: "quiet open", "aria-expanded": "false" }, "Whole text");
  button.addEventListener("click", () => {
    const cut = node.classList.toggle("cut");
    button.setAttribute("aria-expanded", String(!cut));
    button.textContent = cut ? "Whole text" : "Less";
  });
  return button;
}

/** The words that both have, and the tokens of the query, each with what it met. */
function matchesOf(hit, body, note) {
  if (!hit.explanation) return [];
  const { words, tokens } = hit.explanation;
  const parts = [];
  if (words.length) {
    parts.push(
      element("h3", { class: "small" }, "Words in common"),
      element(
        "ul",
        { class: "words" },
        ...words.slice(0, WORDS).map((word) => wordItem(word, body.marks)),
        words.length > WORDS ? element("li", { class: "rest" }, `and ${words.length - WORDS} more`) : null,
      ),
    );
  }
  if (tokens.length) {
    parts.push(
      element("div", { class: "line" }, element("h3", { class: "small" }, "What each part of the query met"), note),
      element("ul", { class: "tokens" }, ...tokens.map((token) => element("li", {}, tokenButton(token, body.marks, note)))),
    );
  }
  return parts;
}

function wordItem(word, marks) {
  const weights = `${word.query_weight.toFixed(2)} × ${word.document_weight.toFixed(2)}`;
  const item = element(
    "li",
    { title: `query weight ${weights} document weight` },
    element("bdi", {}, word.token),
    " ",
    element("span", { class: "weight" }, `${weights} = ${word.score.toFixed(3)}`),
  );
  item.addEventListener("pointerenter", () => markOf(word, marks)?.classList.add("lit"));
  item.addEventListener("pointerleave", () => markOf(word, marks)?.classList.remove("lit"));
  return item;
}

function markOf(match, marks) {
  return match.document_span ? marks.get(match.document_span[0]) : undefined;
}

function tokenButton(token, marks, note) {
  const button = element(
    "button",
    { type: "button", class: "token", "aria-label": `${token.query_token} met ${token.document_token}, ${token.score.toFixed(2)}` },
    element("bdi", {}, token.query_token),
  );
  button.style.setProperty("--strength", String(Math.max(0, Math.min(1, token.score)).toFixed(3)));
  const light = () => {
    markOf(token, marks)?.classList.add("lit");
    note.replaceChildren(
      element("bdi", {}, token.query_token),
      " → ",
      element("bdi", { class: "partner" }, token.document_token),
      ` ${token.score.toFixed(3)}`,
    );
  };
  const dim = () => {
    markOf(token, marks)?.classList.remove("lit");
    note.replaceChildren();
  };
  for (const event of ["pointerenter", "focus"]) button.addEventListener(event, light);
  for (const event of ["pointerleave", "blur"]) button.addEventListener(event, dim);
  return button;
}

function metadataOf(hit) {
  const names = Object.keys(hit.metadata).filter((name) => name !== "title" && !PLACES.includes(name));
  const rows = names.map((name) => [name, hit.metadata[name]]);
  if (titleOf(hit) !== hit.id) rows.unshift(["id", hit.id]);
  if (!rows.length) return null;
  return element(
    "details",
    { class: "metadata" },
    element("summary", {}, "Metadata"),
    element(
      "dl",
      {},
      ...rows.flatMap(([name, value]) => [
        element("dt", {}, name),
        element("dd", { dir: "auto" }, typeof value === "string" ? value : JSON.stringify(value)),
      ]),
    ),
  );
}
