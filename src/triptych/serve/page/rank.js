// Scores and ranks: what needs neither the page nor the server.

export const HEADS = ["dense", "lexical", "multi"];

/**
 * A hit's score. The index's usual sum (`weights.usual`) counts the lexical score by how much of the query it covers;
 * only the server knows that, and `hit.usual` is what it said.
 */
export function total(hit, weights) {
  if (weights.usual) return hit.usual;
  return HEADS.reduce((sum, head) => sum + (weights[head] ?? 0) * (hit.scores[head] ?? 0), 0);
}

/** The part of one head in a hit's score. */
export function partOf(hit, weights, head) {
  const plain = (one) => (weights[one] ?? 0) * (hit.scores[one] ?? 0);
  return weights.usual && head === "lexical" ? hit.score - plain("dense") - plain("multi") : plain(head);
}

/** Hits with their totals under other weights, the best first; equal ones by id, as the server ranks them. */
export function rank(hits, weights) {
  return hits
    .filter((hit) => !weights.usual || hit.usual !== undefined)
    .map((hit) => ({ ...hit, score: total(hit, weights) }))
    .sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
}

/**
 * The largest total that a document can have under other weights, if under the old ones it had at most `limit`.
 *
 * Dense and multi-vector scores lie within -1 and 1, lexical ones are at least 0 and have no upper end. What is best
 * under these bounds: spend the limit on the heads in the order of new per old weight.
 */
export function bound(old, next, limit) {
  let budget = limit;
  let sum = 0;
  for (const head of ["dense", "multi"]) {
    budget += old[head] ?? 0;
    sum -= next[head] ?? 0;
  }
  const worth = (head) => (old[head] ? (next[head] ?? 0) / old[head] : next[head] ? Infinity : 0);
  for (const head of [...HEADS].sort((a, b) => worth(b) - worth(a))) {
    const most = head === "lexical" ? Infinity : 2;
    const amount = old[head] ? Math.min(most, Math.max(0, budget) / old[head]) : most;
    budget -= old[head] ? old[head] * amount : 0;
    sum += next[head] ? next[head] * amount : 0;
  }
  return sum;
}

/**
 * Whether the first `shown` of `ranked` are surely the best of all candidates under new weights.
 *
 * `answers` are what the server has given so far for this query: weights, the lowest total, and whether these were
 * all candidates.
 */
export function suffices(answers, ranked, shown, weights) {
  if (answers.some((answer) => answer.complete && (!weights.usual || answer.weights.usual))) return true;
  if (weights.usual) return answers.some((answer) => answer.weights.usual) && ranked.length >= shown;
  const least = ranked[Math.min(shown, ranked.length) - 1];
  return (
    least !== undefined &&
    answers.some(
      (answer) => !answer.weights.usual && bound(answer.weights, weights, answer.least) < least.score,
    )
  );
}

/** The conditions as the server's filter: several values of a field mean any of them, ranges are joined. */
export function filterOf(conditions) {
  const filter = {};
  for (const { field, operator, value } of conditions) {
    if (operator) filter[field] = { ...(isRange(filter[field]) ? filter[field] : {}), [operator]: value };
    else filter[field] = Array.isArray(filter[field]) ? [...filter[field], value] : [value];
  }
  return Object.keys(filter).length ? filter : null;
}

function isRange(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What was typed, as JSON has it: numbers, true and false; quotes make a text of them. */
export function valueOf(text) {
  try {
    const value = JSON.parse(text);
    if (["number", "boolean", "string"].includes(typeof value)) return value;
  } catch {
    // a plain word
  }
  return text;
}
