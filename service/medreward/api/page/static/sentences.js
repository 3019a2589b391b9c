// An answer with its sentences coloured by what each adds to the reward.

import { make, signed } from "./dom.js";
import { rewardOf } from "./numbers.js";

// Returns the text with each sentence marked. `explain` counts characters as Python does, by code point.
export function colouredText(text, explain, run, weights) {
  const most = largest(run, weights);
  const characters = Array.from(text);
  const parts = [];
  let at = 0;
  for (const { start, end, logits } of explain) {
    if (start > at) parts.push(characters.slice(at, start).join(""));
    parts.push(sentence(characters.slice(start, end).join(""), logits && rewardOf(logits, weights), most));
    at = end;
  }
  parts.push(characters.slice(at).join(""));
  return make(
    "p",
    { class: "text", "aria-label": "What each sentence adds to the reward" },
    ...parts.filter((part) => part !== ""),
  );
}

function sentence(words, adds, most) {
  if (adds == null) return words;
  const title = `Without this sentence the reward would be ${signed(-adds)} different.`;
  const mark = make("mark", { class: adds < 0 ? "against" : "for", title }, words, make("small", {}, signed(adds)));
  mark.style.setProperty("--strength", `${Math.round(100 * Math.min(1, 0.15 + (0.85 * Math.abs(adds)) / most))}%`);
  return mark;
}

// The strongest contribution of the whole run, so that colours of two answers can be compared.
function largest(run, weights) {
  const all = run.results
    .flatMap((result) => result.explain ?? [])
    .map(({ logits }) => Math.abs((logits && rewardOf(logits, weights)) ?? 0));
  return Math.max(1e-9, ...all);
}
