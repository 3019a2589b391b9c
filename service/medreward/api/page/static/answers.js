// The answers that are compared: one card each, with a text to write and room for its result.

import { byId, letterOf, make } from "./dom.js";
import { MOST_ANSWERS } from "./permalink.js";

let atChange = () => {};
const cards = [];

export const answerTexts = () => cards.map((card) => card.text.value);
export const answerCards = () => cards;

export function startAnswers(count, changed) {
  for (let n = 0; n < count; n += 1) addCard();
  atChange = changed;
  byId("add").addEventListener("click", addAnswer);
}

export function addAnswer() {
  if (cards.length >= MOST_ANSWERS) return;
  addCard();
  atChange();
  cards.at(-1).text.focus();
}

// Puts these texts into the cards, unless somebody has written something already.
export function offerAnswers(texts, replaceable) {
  if (!answerTexts().every((text) => text === "" || replaceable.has(text))) return;
  while (cards.length < texts.length) addCard();
  for (const [place, card] of cards.entries()) card.text.value = texts[place] ?? "";
  atChange();
}

function addCard() {
  const id = `answer-${crypto.randomUUID?.() ?? Math.random()}`;
  const card = {
    letter: make("span", { class: "letter", "aria-hidden": "true" }),
    name: make("span"),
    rank: make("span", { class: "rank" }),
    reward: make("div", { class: "reward" }),
    text: make("textarea", { id, rows: 3, placeholder: "What is answered?", oninput: () => atChange() }),
    result: make("div", { class: "result" }),
  };
  card.remove = make("button", { type: "button", class: "quiet remove", onclick: () => removeCard(card) }, "×");
  const label = make("label", { for: id }, card.letter, card.name);
  const head = make("div", { class: "answer-head" }, label, card.rank, card.reward, card.remove);
  card.element = make("li", { class: "answer" }, head, card.text, card.result);
  cards.push(card);
  byId("answers").append(card.element);
  nameCards();
}

function removeCard(card) {
  cards.splice(cards.indexOf(card), 1);
  card.element.remove();
  nameCards();
  atChange();
  (cards[0]?.text ?? byId("add")).focus();
}

function nameCards() {
  for (const [place, card] of cards.entries()) {
    const letter = letterOf(place);
    card.letter.textContent = letter;
    card.name.textContent = `Answer ${letter}`;
    card.remove.setAttribute("aria-label", `Remove answer ${letter}`);
    card.remove.disabled = cards.length === 1;
  }
  byId("add").disabled = cards.length >= MOST_ANSWERS;
}
