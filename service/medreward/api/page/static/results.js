// Draws the results into the cards of their answers: rank, reward, six bars, sentences, flags and verdict.

import { digits, make, signed } from "./dom.js";
import { DIMENSIONS, ranks, rewardOf } from "./numbers.js";
import { colouredText } from "./sentences.js";
import { stepsOf } from "./steps.js";
import { verdictLine } from "./verdict.js";
import { FLAGS } from "./words.js";

const WORDS = ["", "1st", "2nd", "3rd"];

// Draws a run, which has a text and a result for each card, under these weights.
export function drawResults(cards, run, weights, withLogits) {
  const rewards = run.results.map((result) => (result.logits ? rewardOf(result.logits, weights) : null));
  const places = ranks(rewards);
  for (const [place, card] of cards.entries()) {
    const result = run.results[place];
    card.element.classList.toggle("best", cards.length > 1 && places[place] === 1);
    card.rank.textContent = places[place] && cards.length > 1 ? (WORDS[places[place]] ?? `${places[place]}th`) : "";
    card.reward.replaceChildren(
      make("span", { class: "note" }, "reward"),
      make("output", { title: rewards[place] ?? "" }, digits(rewards[place])),
    );
    card.result.replaceChildren(...partsOf(result, run, place, weights, withLogits));
  }
  return { rewards, places };
}

export function clearResult(card) {
  card.element.classList.remove("best", "stale");
  card.rank.textContent = "";
  card.reward.replaceChildren();
  card.result.replaceChildren();
}

function partsOf(result, run, place, weights, withLogits) {
  const parts = [verdictLine(result, run.asked.policy)];
  if (result.status === "error") {
    parts.push(make("p", { class: "no-score" }, `No score: ${result.error.message} (${result.error.code})`));
  } else {
    parts.push(sixBars(result, run.results, withLogits));
    if (result.explain?.length) parts.push(colouredText(run.texts[place], result.explain, run, weights));
    if (result.steps) parts.push(stepsOf(run.texts[place], result.steps, weights));
  }
  if (result.flags.length) parts.push(flagList(result.flags));
  return parts.filter(Boolean);
}

function sixBars(result, all, withLogits) {
  const doubts = all.flatMap((other) => Object.values(other.uncertainty ?? {})).filter((value) => value != null);
  const mostDoubt = Math.max(1, ...doubts);
  const heads = ["", "", "score", withLogits && "logit", doubts.length && "uncert."].filter(
    (head) => typeof head === "string",
  );
  const names = ["name", "", "number", "number", "number"];
  const row = (dimension) => rowOf(dimension, result, all, withLogits, doubts.length ? mostDoubt : 0);
  return make(
    "table",
    { class: "six" },
    make("caption", {}, "Scores of this answer; 0.5 is the median answer of the calibration"),
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        ...heads.map((head, n) =>
          make(head || n === 0 ? "th" : "td", { class: names[n], scope: head ? "col" : null }, head),
        ),
      ),
    ),
    make("tbody", {}, ...DIMENSIONS.map(row)),
  );
}

function rowOf(dimension, result, all, withLogits, mostDoubt) {
  const score = result.scores[dimension];
  const others = all.map((other) => other.scores?.[dimension] ?? -1);
  const isTop = all.length > 1 && score != null && score === Math.max(...others);
  const doubt = result.uncertainty?.[dimension];
  return make(
    "tr",
    { "data-dimension": dimension },
    make("th", { scope: "row" }, dimension),
    make("td", { class: "bar" }, barOf(score), mostDoubt ? lineOf(doubt, mostDoubt) : null),
    make("td", { class: isTop ? "score top-score" : "score" }, digits(score)),
    withLogits
      ? make("td", { class: "soft logit", title: result.logits[dimension] ?? "" }, signed(result.logits[dimension]))
      : null,
    mostDoubt ? make("td", { class: "soft" }, digits(doubt)) : null,
  );
}

function barOf(score) {
  const fill = make("i");
  fill.style.width = `${100 * (score ?? 0)}%`;
  return make("div", { class: "track", "aria-hidden": "true" }, fill);
}

function lineOf(doubt, most) {
  const line = make("div", { class: "doubt", "aria-hidden": "true" });
  line.style.width = `${(100 * (doubt ?? 0)) / most}%`;
  return line;
}

function flagList(flags) {
  const item = (flag) =>
    make(
      "li",
      {},
      make("code", {}, flag),
      FLAGS[flag] ?? "This page is older than this flag: the API’s documentation says what it means.",
    );
  return make("ul", { class: "flags", "aria-label": "Flags" }, ...flags.map(item));
}
