// What stands before the question beside its image: further images and earlier turns, for a model that reads them.

import { byId, make, show } from "./dom.js";

let atChange = () => {};
let version = 0;
let most = { images: 1, turns: 0 };
const images = []; // of File
const exchanges = []; // of {asked, replied, element}

// A number that is another one after each change.
export const beforeVersion = () => version;
export const furtherFiles = () => (most.images > 1 ? [...images] : []);

// Returns the turns as the API takes them. What was left empty on both sides is none.
export const earlierTurns = () =>
  (most.turns > 1 ? exchanges : [])
    .map(({ asked, replied }) => [asked.value, replied.value])
    .filter(([asked, replied]) => asked.trim() || replied.trim())
    .flatMap(([asked, replied]) => [
      { role: "user", content: asked },
      { role: "assistant", content: replied },
    ]);

export function startBefore(changed) {
  atChange = () => {
    version += 1;
    changed();
  };
  byId("more-files").addEventListener("change", (event) => {
    images.push(...event.target.files);
    event.target.value = "";
    drawImages();
    atChange();
  });
  byId("add-turn").addEventListener("click", addExchange);
}

// Shows what the model can read, by the limits of the server.
export function limitBefore(limits) {
  most = { images: limits.item_images ?? 1, turns: limits.item_turns ?? 0 };
  show(byId("before"), most.images > 1 || most.turns > 1);
  show(byId("more-images-row"), most.images > 1);
  show(byId("turns-row"), most.turns > 1);
}

function drawImages() {
  const item = (file, place) => {
    const about = { class: "quiet", "aria-label": `Remove ${file.name}`, onclick: () => drop(place) };
    return make("li", {}, make("span", {}, file.name), make("button", { type: "button", ...about }, "×"));
  };
  byId("more-images").replaceChildren(...images.map(item));
}

function drop(place) {
  images.splice(place, 1);
  drawImages();
  byId("more-files").focus();
  atChange();
}

function addExchange() {
  if (2 * exchanges.length + 2 > most.turns) return;
  const field = (about) => make("textarea", { rows: 2, placeholder: about, "aria-label": about, oninput: atChange });
  const exchange = { asked: field("What was asked before?"), replied: field("What was answered?") };
  const remove = make("button", { type: "button", class: "quiet", onclick: () => removeExchange(exchange) }, "Remove");
  exchange.element = make("li", {}, exchange.asked, exchange.replied, remove);
  exchanges.push(exchange);
  byId("turns").append(exchange.element);
  exchange.asked.focus();
}

function removeExchange(exchange) {
  exchanges.splice(exchanges.indexOf(exchange), 1);
  exchange.element.remove();
  byId("add-turn").focus();
  atChange();
}
