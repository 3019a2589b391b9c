// The weights of the reward, one slider and one number field for each dimension.

import { byId, make } from "./dom.js";
import { DIMENSIONS } from "./numbers.js";

let ofModel = {};
let weights = Object.fromEntries(DIMENSIONS.map((dimension) => [dimension, 0]));
let areChosen = false;
let atChange = () => {};
const fields = new Map();

export const currentWeights = () => weights;
// The weights for the link: none while they are the model's own.
export const chosenWeights = () => (areChosen ? weights : null);

export function startWeights(fromLink, changed) {
  atChange = changed;
  byId("weights").append(...DIMENSIONS.flatMap(rowOf));
  byId("weights-reset").addEventListener("click", () => {
    areChosen = false;
    put(ofModel);
    atChange();
  });
  if (fromLink) {
    areChosen = true;
    put(fromLink);
  }
}

export function takeModelWeights(given, dimensions) {
  ofModel = given;
  if (!areChosen) put(given);
  for (const [dimension, inputs] of fields)
    for (const input of inputs) input.disabled = !dimensions.includes(dimension);
}

function rowOf(dimension) {
  const id = `weight-${dimension}`;
  const common = { step: 0.05, value: 0 };
  const slider = make("input", {
    id,
    type: "range",
    min: -2,
    max: 2,
    ...common,
    oninput: () => set(dimension, slider.value),
  });
  const number = make("input", {
    type: "number",
    ...common,
    step: "any",
    "aria-label": `${dimension}, exact weight`,
    oninput: () => set(dimension, number.value),
  });
  fields.set(dimension, [slider, number]);
  return [make("label", { for: id }, dimension), slider, number];
}

function set(dimension, text) {
  const value = Number(text);
  if (text === "" || !Number.isFinite(value)) return;
  areChosen = true;
  weights = { ...weights, [dimension]: value };
  for (const input of fields.get(dimension)) if (input !== document.activeElement) input.value = value;
  atChange();
}

function put(given) {
  weights = Object.fromEntries(DIMENSIONS.map((dimension) => [dimension, given[dimension] ?? 0]));
  for (const [dimension, inputs] of fields) for (const input of inputs) input.value = weights[dimension];
}
