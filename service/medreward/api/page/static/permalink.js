// The settings that the address keeps, so that a link shows them again: never an image, a question or an answer.

import { DIMENSIONS } from "./numbers.js";

export const MOST_ANSWERS = 8;

// Returns the settings of the address; what it does not name, or names wrongly, is as it is at first.
export function readLink() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const answers = Number.parseInt(parts.get("answers"), 10);
  return {
    view: parts.get("view") === "operator" ? "operator" : "try",
    answers: answers >= 1 && answers <= MOST_ANSWERS ? answers : 2,
    weights: readWeights(parts.get("weights")),
    policy: /^[A-Za-z0-9._-]{1,64}$/.test(parts.get("policy") ?? "") ? parts.get("policy") : "",
    logits: parts.get("logits") === "1",
    sentences: parts.get("sentences") !== "0",
    steps: parts.get("steps") === "1",
  };
}

function readWeights(text) {
  const values = (text ?? "").split(",").map(Number);
  if (!text || values.length !== DIMENSIONS.length || !values.every(Number.isFinite)) return null;
  return Object.fromEntries(DIMENSIONS.map((dimension, place) => [dimension, values[place]]));
}

export function writeLink({ view, answers, weights, policy, logits, sentences, steps }) {
  const parts = new URLSearchParams({ view, answers });
  if (weights) parts.set("weights", DIMENSIONS.map((dimension) => weights[dimension] ?? 0).join(","));
  if (policy) parts.set("policy", policy);
  if (logits) parts.set("logits", "1");
  if (!sentences) parts.set("sentences", "0");
  if (steps) parts.set("steps", "1");
  history.replaceState(null, "", `#${parts.toString().replaceAll("%2C", ",")}`);
}
