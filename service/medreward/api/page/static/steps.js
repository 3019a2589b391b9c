// The reward along an answer: what it would be if the answer ended with each of its sentences.

import { lineChart } from "./charts.js";
import { digits, make } from "./dom.js";
import { rewardOf } from "./numbers.js";

const FEWEST = 2; // steps that are worth a line
const WORDS = 4; // of a step's end that are shown

// Returns a chart and a list of the steps, or null where there are too few. `end` counts code points, as Python does.
export function stepsOf(text, steps, weights) {
  if (steps.length < FEWEST) return null;
  const characters = Array.from(text);
  const rewards = steps.map(({ logits }) => (logits ? rewardOf(logits, weights) : null));
  const known = rewards.filter((reward) => reward != null);
  const least = Math.min(...known);
  const heights = rewards.map((reward) => (reward == null ? null : reward - least));
  const about = `The reward along the answer, from ${digits(rewards[0])} to ${digits(rewards.at(-1))}`;
  const item = ({ end }, place) => {
    const begin = place ? steps[place - 1].end : 0;
    const words = characters.slice(begin, end).join("").trim().split(/\s+/);
    const shown = words.length > WORDS ? `… ${words.slice(-WORDS).join(" ")}` : words.join(" ");
    const reward = make("output", { title: rewards[place] ?? "" }, digits(rewards[place]));
    return make("li", {}, make("span", {}, shown), reward);
  };
  return make(
    "figure",
    { class: "steps" },
    make("figcaption", {}, "Reward if the answer ended there"),
    known.length < FEWEST ? null : lineChart(heights, heights.length, about),
    make("ol", {}, ...steps.map(item)),
  );
}
