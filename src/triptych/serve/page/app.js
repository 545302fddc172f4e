// The page: asks the server, and ranks what it has anew when a weight moves.

import { HEADS, filterOf, rank, suffices, valueOf } from "./rank.js";
import { NAMES, element, hitItem } from "./view.js";

const CANDIDATES = 50; // hits of one request; the sliders rank these without a further one
const LARGEST = 5; // of a slider, unless the index's own weight is beyond it
const STEP = 10; // hits that are shown, and that "More" adds
const PAUSE = 250; // milliseconds after a slider rests until the server is asked

const at = (id) => document.getElementById(id);
const state = {
  indexes: [],
  index: null,
  weights: {},
  conditions: [],
  query: "",
  pool: new Map(), // all hits of this query so far, by id
  answers: [], // for each request: weights, least score, whether there are no more candidates
  shown: STEP,
  asking: null, // the search on its way
  round: 0, // counts queries, so that late explanations of an earlier one are dropped
  timer: 0,
};

// The server.

async function ask(path, body) {
  const key = sessionStorage.getItem("triptych-key");
  const headers = { accept: "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  if (body) headers["content-type"] = "application/json";
  const response = await fetch(path, { ...options, headers, signal: state.asking?.signal });
  if (response.status === 401) {
    await login();
    return ask(path, body);
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.message ?? `the server answered ${response.status}`);
  return answer;
}

function login() {
  const dialog = at("login");
  at("key").value = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        sessionStorage.setItem("triptych-key", at("key").value.trim());
        resolve();
      },
      { once: true },
    );
  });
}

/** Asks for the best hits under the present weights, beside what is there already. */
async function fetchHits(k = CANDIDATES) {
  state.asking?.abort();
  const asking = (state.asking = new AbortController());
  const weights = present();
  at("results").setAttribute("aria-busy", "true");
  const started = performance.now();
  try {
    const { hits } = await ask(`v1/indexes/${encodeURIComponent(state.index.name)}/search`, {
      query: state.query,
      k,
      weights: weights.usual ? undefined : state.weights,
      filter: filterOf(state.conditions),
    });
    if (state.asking !== asking) return;
    for (const hit of hits) {
      if (!state.pool.has(hit.id)) state.pool.set(hit.id, hit);
      if (weights.usual) state.pool.get(hit.id).usual = hit.score;
    }
    state.answers.push({ weights, least: hits.at(-1)?.score ?? 0, complete: hits.length < k });
    draw();
    explainShown();
    const count = `${state.pool.size}${state.answers.some((answer) => answer.complete) ? "" : "+"}`;
    const what = state.pool.size === 1 ? "hit" : "hits";
    say(state.pool.size ? `${count} ${what}, ${Math.round(performance.now() - started)} ms` : "Nothing found");
  } catch (error) {
    if (error.name !== "AbortError" && state.asking === asking) say(error.message, true);
  } finally {
    if (state.asking === asking) at("results").removeAttribute("aria-busy");
  }
}

/** Asks why the hits that are shown match; the others cost the server nothing. */
async function explainShown() {
  const round = state.round;
  const shown = ranked().slice(0, state.shown);
  const missing = shown.map((hit) => state.pool.get(hit.id)).filter((hit) => !hit.explanation && !hit.isAsked);
  if (!missing.length) return;
  for (const hit of missing) hit.isAsked = true;
  try {
    const path = `v1/indexes/${encodeURIComponent(state.index.name)}/explain`;
    const { explanations } = await ask(path, { query: state.query, ids: missing.map((hit) => hit.id) });
    missing.forEach((hit, i) => (hit.explanation = explanations[i] ?? { words: [], tokens: [] }));
    if (state.round === round) draw();
  } catch (error) {
    for (const hit of missing) hit.isAsked = false;
    if (error.name !== "AbortError" && state.round === round) say(error.message, true);
  }
}

// What is shown.

function say(text, isError = false) {
  at("status").textContent = text;
  at("status").classList.toggle("error", isError);
}

/** The weights as they are, and whether they are the index's own sum, which is not linear in the lexical score. */
function present() {
  const own = state.index?.weights ?? {};
  const same = HEADS.every((head) => (state.weights[head] ?? 0) === (own[head] ?? 0));
  return { ...state.weights, usual: same && state.index?.sum === "coverage" };
}

function ranked() {
  return rank([...state.pool.values()], present());
}

function draw() {
  const hits = ranked().slice(0, state.shown);
  const list = at("results");
  const open = new Set([...list.querySelectorAll(".text:not(.cut)")].map((text) => text.closest("li").dataset.id));
  const focused = document.activeElement?.closest?.("#results > li")?.dataset.id;
  const best = hits[0]?.score ?? 0;
  list.replaceChildren(...hits.map((hit, i) => hitItem(hit, i + 1, present(), best)));
  for (const item of list.children) {
    if (open.has(item.dataset.id) && item.querySelector(".cut")) item.querySelector(".open").click();
    if (item.dataset.id === focused) item.focus({ preventScroll: true });
  }
  at("more").hidden = state.pool.size <= state.shown && state.answers.some((answer) => answer.complete);
  if (!state.pool.size) at("more").hidden = true;
}

/** A new query, filter or index: nothing of what was found before counts. */
function search() {
  clearTimeout(state.timer);
  state.query = at("query").value.trim();
  state.pool = new Map();
  state.round += 1;
  state.answers = [];
  state.shown = STEP;
  remember();
  if (!state.query || !state.index) {
    state.asking?.abort();
    draw();
    say("");
    return;
  }
  if (!HEADS.some((head) => state.weights[head])) {
    say("All weights are 0: nothing can be ranked", true);
    return;
  }
  fetchHits();
}

/** Other weights: what is there is ranked at once; the server is asked only where others may come before it. */
function weigh() {
  clearTimeout(state.timer);
  remember();
  if (!state.query || !state.index) return;
  if (!HEADS.some((head) => state.weights[head])) return;
  draw();
  const certain = suffices(state.answers, ranked(), state.shown, present());
  state.timer = setTimeout(() => (certain ? explainShown() : fetchHits(Math.max(CANDIDATES, state.shown))), PAUSE);
}

function more() {
  const before = state.shown;
  state.shown += STEP;
  const certain = suffices(state.answers, ranked(), state.shown, present());
  draw();
  if (certain && state.pool.size >= state.shown) explainShown();
  else fetchHits(state.shown + CANDIDATES);
  at("results").children[before]?.focus();
}

// Settings.

function drawWeights() {
  const held = new Set(state.index?.heads ?? []);
  at("weights").replaceChildren(
    ...HEADS.map((head) => {
      const value = element("output", { for: `weight-${head}` }, String(state.weights[head] ?? 0));
      const slider = element("input", {
        id: `weight-${head}`,
        type: "range",
        min: 0,
        max: Math.max(LARGEST, state.weights[head] ?? 0),
        step: 0.05,
        value: state.weights[head] ?? 0,
        disabled: !held.has(head),
      });
      slider.addEventListener("input", () => {
        state.weights[head] = Number(slider.value);
        value.textContent = String(state.weights[head]);
        weigh();
      });
      return element("div", { class: `weight ${head}` }, element("label", { for: slider.id }, NAMES[head]), slider, value);
    }),
  );
}

function drawConditions() {
  const signs = { "": "is", gte: "≥", gt: ">", lte: "≤", lt: "<" };
  at("filters").replaceChildren(
    ...state.conditions.map((condition, i) => {
      const value = typeof condition.value === "string" ? condition.value : JSON.stringify(condition.value);
      const text = `${condition.field} ${signs[condition.operator]} ${value}`;
      const remove = element("button", { type: "button", "aria-label": `Remove the filter ${text}` }, "×");
      remove.addEventListener("click", () => {
        state.conditions.splice(i, 1);
        drawConditions();
        search();
        at("field").focus();
      });
      return element("li", {}, element("bdi", {}, text), remove);
    }),
  );
}

function choose(name, weights) {
  state.index = state.indexes.find((index) => index.name === name) ?? state.indexes[0] ?? null;
  if (!state.index) return;
  state.weights = { ...state.index.weights, ...weights };
  at("index").value = state.index.name;
  at("fields").replaceChildren(...state.index.fields.map((field) => element("option", { value: field })));
  drawWeights();
  drawConditions();
}

// The address holds what was asked, so that it can be shared and gone back to.

function remember() {
  const parameters = new URLSearchParams();
  if (state.query) parameters.set("q", state.query);
  if (state.index && state.indexes.length > 1) parameters.set("index", state.index.name);
  const changed = HEADS.some((head) => (state.weights[head] ?? 0) !== (state.index?.weights[head] ?? 0));
  if (changed) parameters.set("w", HEADS.map((head) => state.weights[head] ?? 0).join(","));
  if (state.conditions.length) parameters.set("f", JSON.stringify(state.conditions));
  const text = parameters.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

function recall() {
  const parameters = new URLSearchParams(location.search);
  at("query").value = parameters.get("q") ?? "";
  const numbers = (parameters.get("w") ?? "").split(",").map(Number);
  const weights = {};
  if (numbers.length === HEADS.length && numbers.every((number) => number >= 0 && number < Infinity)) {
    HEADS.forEach((head, i) => (weights[head] = numbers[i]));
  }
  try {
    const given = JSON.parse(parameters.get("f") ?? "[]");
    const good = (each) => typeof each?.field === "string" && ["", "gte", "gt", "lte", "lt"].includes(each.operator);
    state.conditions = Array.isArray(given) ? given.filter(good) : [];
  } catch {
    state.conditions = [];
  }
  choose(parameters.get("index"), weights);
}

// Light and dark.

const THEMES = { auto: "◐ Automatic", light: "☀ Light", dark: "☾ Dark" };

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  localStorage.setItem("triptych-theme", theme);
  at("theme").textContent = THEMES[theme];
  at("theme").setAttribute("aria-label", `Colors: ${THEMES[theme].slice(2)}`);
}

function nextTheme() {
  const names = Object.keys(THEMES);
  const now = localStorage.getItem("triptych-theme") ?? "auto";
  setTheme(names[(names.indexOf(now) + 1) % names.length]);
}

// Keys.

function onKey(event) {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !typing) {
    event.preventDefault();
    at("query").select();
    at("query").focus();
    return;
  }
  const fromQuery = event.target === at("query") && event.key === "ArrowDown";
  if ((typing && !fromQuery) || !["ArrowDown", "ArrowUp", "Enter"].includes(event.key)) return;
  const items = [...at("results").children];
  const now = items.indexOf(event.target.closest("#results > li"));
  if (event.key === "Enter") {
    if (event.target === items[now]) event.target.querySelector(".open")?.click();
    return;
  }
  const next = items[now + (event.key === "ArrowDown" ? 1 : -1)];
  if (next) {
    event.preventDefault();
    next.focus();
  } else if (event.key === "ArrowUp" && now === 0) {
    event.preventDefault();
    at("query").focus();
  }
}

function wire() {
  at("search").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  at("condition").addEventListener("submit", (event) => {
    event.preventDefault();
    const [field, operator, value] = ["field", "operator", "value"].map((id) => at(id).value.trim());
    if (!field || !value) return;
    state.conditions.push({ field, operator, value: valueOf(value) });
    event.target.reset();
    drawConditions();
    search();
  });
  at("reset").addEventListener("click", () => {
    state.weights = { ...state.index?.weights };
    drawWeights();
    weigh();
  });
  at("index").addEventListener("change", () => {
    choose(at("index").value, {});
    search();
  });
  at("more").addEventListener("click", more);
  at("theme").addEventListener("click", nextTheme);
  document.addEventListener("keydown", onKey);
}

async function start() {
  setTheme(localStorage.getItem("triptych-theme") ?? "auto");
  if (matchMedia("(max-width: 52rem)").matches) at("settings").open = false;
  wire();
  try {
    state.indexes = (await ask("v1/indexes")).indexes;
  } catch (error) {
    say(error.message, true);
    return;
  }
  at("index").replaceChildren(
    ...state.indexes.map((index) => element("option", { value: index.name }, `${index.name} (${index.documents})`)),
  );
  at("where").hidden = state.indexes.length < 2;
  if (!state.indexes.length) {
    say("This server has no index: it was started for embeddings alone", true);
    return;
  }
  recall();
  at("query").focus();
  if (at("query").value) search();
}

start();
