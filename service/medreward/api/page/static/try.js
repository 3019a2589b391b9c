// The view to try the model: what is asked, the scores that come back, and what can be done with them.

import { addAnswer, answerCards, answerTexts, offerAnswers, startAnswers } from "./answers.js";
import { byId, digits, letterOf, show } from "./dom.js";
import { sigmoid } from "./numbers.js";
import { cancelLook, drawMap, forgetMap, offerAnswersToLook, startOcclusion } from "./occlusion.js";
import { PHANTOMS, phantomButtons } from "./phantoms.js";
import { base64Of, choosePicture, limitPicture, pictureFile, pictureName, startPicture } from "./picture.js";
import { clearProblem, showProblem } from "./problems.js";
import { recipe } from "./recipes.js";
import { clearResult, drawResults } from "./results.js";
import { hasKey, postJson } from "./server.js";
import { chosenDepartment, chosenPolicy, startPolicies } from "./verdict.js";
import { chosenWeights, currentWeights, startWeights, takeModelWeights } from "./weights.js";
import { EVIDENCE } from "./words.js";

const SECONDS = 30;
const OFFERED = new Set(PHANTOMS.flatMap((phantom) => [phantom.question, ...phantom.answers]));

let atSettings = () => {};
let limits = {};
let explains = false; // whether the server can say what each sentence adds
let run = null; // what was scored last: {cards, texts, results, question, file}
let running = null;
let recipeKind = "curl";

// `changed` is called when a setting changes that the link keeps; `refused` when a request is refused.
export function startTry(link, changed, refused) {
  atSettings = changed;
  startAnswers(link.answers, atChange);
  startWeights(link.weights, atWeights);
  startPicture(atPicture);
  startOcclusion(() => ({ ...asked(), limits }));
  byId("phantoms").append(...phantomButtons(takePhantom));
  byId("logits").checked = link.logits;
  byId("sentences").checked = link.sentences;
  byId("logits").addEventListener("change", () => [redraw(), atSettings()]);
  byId("sentences").addEventListener("change", atChange);
  byId("question").addEventListener("input", atChange);
  byId("score").addEventListener("click", () => score(refused));
  byId("cancel").addEventListener("click", cancel);
  byId("copy-request").addEventListener("click", (event) => copy(byId("recipe").textContent, event.target));
  byId("copy-link").addEventListener("click", (event) => copy(location.href, event.target));
  for (const button of document.querySelectorAll("[data-recipe]")) button.addEventListener("click", () => takeRecipe(button));
  atChange();
}

export const trySettings = () => ({
  answers: answerCards().length,
  weights: chosenWeights(),
  policy: chosenPolicy(),
  logits: byId("logits").checked,
  sentences: byId("sentences").checked,
});

// Takes what the server says of its model and its limits.
export async function takeServer(model, given, policy) {
  limits = given;
  explains = "explain_sentences" in limits;
  limitPicture(limits.image_bytes);
  takeModelWeights(model.default_weights, model.dimensions);
  showEvidence(model.evidence);
  byId("uncertainty-key").title = model.uncertainty ?? "";
  show(byId("uncertainty-key"), model.uncertainty);
  await startPolicies(policy, atChange);
  atChange();
}

export { addAnswer };

export function cancel() {
  running?.abort();
  cancelLook();
}

function asked() {
  return { question: byId("question").value, answers: answerTexts(), weights: currentWeights() };
}

async function score(refused) {
  clearProblem(byId("problem"));
  if (!byId("question").value.trim()) {
    byId("question").focus();
    return say("Write a question first.");
  }
  running?.abort();
  const mine = (running = new AbortController());
  setBusy(true);
  say("Scoring …");
  try {
    const next = await request(mine.signal);
    takeRun(next);
  } catch (error) {
    say(mine.signal.aborted && running === mine ? "Cancelled." : "");
    if (!mine.signal.aborted) {
      showProblem(byId("problem"), error);
      refused(error);
    }
  } finally {
    if (running === mine) setBusy(false);
  }
}

// Sends what the page holds and returns the run.
async function request(signal) {
  const { question, answers, weights } = asked();
  const [file, cards, policy, department] = [pictureFile(), [...answerCards()], chosenPolicy(), chosenDepartment()];
  const image = file ? await base64Of(file) : null;
  const item = { image, question, responses: answers, ...(department && { department }) };
  const body = { items: [item], weights, ...(policy && { policy }) };
  const started = performance.now();
  const send = (options) => postJson(policy ? "v1/screen" : "v1/score", { ...body, ...options }, {
    signal, seconds: SECONDS + 5, headers: { "Content-Type": "application/json", "X-Deadline-Ms": String(SECONDS * 1000) },
  });
  const reply = await (wantsSentences() ? withSentences(send) : send({}));
  return { cards, texts: answers, results: reply.results, reply, question, file, policy, department, milliseconds: performance.now() - started };
}

const wantsSentences = () => explains && byId("sentences").checked;

// Asks for sentences too. A server that refuses the option is asked again without it, and from then on.
async function withSentences(send) {
  const isUnknown = (error) => error?.field?.includes("explain") || error?.code === "unsupported_field";
  try {
    const reply = await send({ options: { explain: "sentences" } });
    if (!reply.results.every((result) => isUnknown(result.error))) return reply;
  } catch (error) {
    if (!isUnknown(error)) throw error;
  }
  explains = false;
  return send({});
}

function takeRun(next) {
  run = next;
  showEvidence(run.reply.model.evidence);
  for (const card of answerCards()) if (!run.cards.includes(card)) clearResult(card);
  say(summary());
  redraw();
}

function redraw() {
  const isThere = Boolean(run?.results.length);
  show(byId("key-line"), isThere);
  if (!isThere) return;
  show(byId("sentence-key"), run.results.some((result) => result.explain?.length));
  drawResults(run.cards, run, currentWeights(), byId("logits").checked);
  const now = { question: byId("question").value, file: pictureFile(), policy: chosenPolicy(), department: chosenDepartment() };
  const isOther = Object.entries(now).some(([name, value]) => run[name] !== value);
  for (const [place, card] of run.cards.entries()) card.element.classList.toggle("stale", isOther || card.text.value !== run.texts[place]);
}

function summary() {
  const { results, milliseconds } = run;
  const failed = results.filter((result) => result.status === "error").length;
  const scored = results.map((result, place) => ({ ...result, place })).filter((result) => result.reward != null);
  const [first, second] = scored.sort((a, b) => b.reward - a.reward);
  const parts = [`${results.length - failed} of ${results.length} scored in ${milliseconds.toFixed(0)} ms.`];
  if (second) {
    parts.push(`${letterOf(first.place)} is first with ${digits(first.reward)}.`);
    const [a, b] = [first.logits.overall, second.logits.overall];
    if (a != null && b != null) parts.push(`Overall, it beats ${letterOf(second.place)} with probability ${digits(sigmoid(a - b))}.`);
  } else if (first) parts.push(`Reward ${digits(first.reward)}.`);
  if (byId("sentences").checked && !explains) parts.push("This server does not explain sentences.");
  return parts.join(" ");
}

function takePhantom(phantom, file) {
  const question = byId("question");
  if (!question.value || OFFERED.has(question.value)) question.value = phantom.question;
  offerAnswers(phantom.answers, OFFERED);
  choosePicture(file, `phantom-${phantom.name}.png`);
}

function atPicture() {
  const isPhantom = (button) => pictureName() === `phantom-${button.dataset.phantom}.png`;
  for (const button of byId("phantoms").children) button.setAttribute("aria-pressed", isPhantom(button));
  atChange();
}

function atChange() {
  const cards = answerCards();
  if (run) dropRemoved(cards);
  offerAnswersToLook(cards.length);
  forgetMap();
  redraw();
  writeRecipe();
  atSettings();
}

function dropRemoved(cards) {
  const kept = run.cards.map((card, place) => (cards.includes(card) ? place : -1)).filter((place) => place >= 0);
  run = { ...run, cards: kept.map((place) => run.cards[place]), texts: kept.map((place) => run.texts[place]), results: kept.map((place) => run.results[place]) };
}

function atWeights() {
  redraw();
  drawMap();
  writeRecipe();
  atSettings();
}

function takeRecipe(button) {
  recipeKind = button.dataset.recipe;
  for (const other of document.querySelectorAll("[data-recipe]")) other.setAttribute("aria-pressed", other === button);
  writeRecipe();
}

function writeRecipe() {
  const ending = { "image/jpeg": "jpg", "image/webp": "webp", "image/png": "png" }[pictureFile()?.type] ?? "dcm";
  const image = pictureFile() ? `image.${ending}` : "";
  byId("recipe").textContent = recipe(recipeKind, { ...asked(), image, policy: chosenPolicy(), department: chosenDepartment(), withKey: hasKey(), explain: wantsSentences() });
}

async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed: select and copy";
  }
  setTimeout(() => (button.textContent = before), 1500);
}

function showEvidence(evidence) {
  const [kind, head, text] = EVIDENCE[evidence] ?? EVIDENCE.none;
  const banner = byId("evidence");
  const strong = document.createElement("b");
  strong.textContent = head;
  banner.className = `banner ${kind}`;
  banner.replaceChildren(strong, ` ${text}`);
  show(banner, true);
  const chip = byId("evidence-chip");
  chip.className = `chip ${kind}`;
  chip.textContent = `evidence: ${evidence}`;
  show(chip, true);
}

function setBusy(isBusy) {
  show(byId("cancel"), isBusy);
  byId("answers").setAttribute("aria-busy", isBusy);
}

function say(text) {
  byId("status").textContent = text;
}
