// The view to try the model: what is asked, the scores that come back, and what can be done with them.

import { addAnswer, answerCards, answerTexts, offerAnswers, startAnswers } from "./answers.js";
import { beforeVersion, earlierTurns, furtherFiles, limitBefore, startBefore } from "./before.js";
import { byId, digits, letterOf, show } from "./dom.js";
import { showEvidence } from "./evidence.js";
import { sigmoid } from "./numbers.js";
import { cancelLook, drawMap, forgetMap, offerAnswersToLook, startOcclusion } from "./occlusion.js";
import { PHANTOMS, phantomButtons } from "./phantoms.js";
import { choosePicture, limitPicture, pictureFile, pictureName, startPicture } from "./picture.js";
import { clearProblem, showProblem } from "./problems.js";
import { clearResult, drawResults } from "./results.js";
import { explainsSentences, learnFrom, scoreAnswers } from "./scoring.js";
import { startSharing, writeRecipe } from "./sharing.js";
import { chosenDepartment, chosenPolicy, startPolicies } from "./verdict.js";
import { chosenWeights, currentWeights, startWeights, takeModelWeights } from "./weights.js";

const OFFERED = new Set(PHANTOMS.flatMap((phantom) => [phantom.question, ...phantom.answers]));

let atSettings = () => {};
let limits = {};
let fingerprint = "";
let run = null; // what was scored last: what was asked, the reply, and for each card its text and result
let running = null;

// `changed` is called when a setting changes that the link keeps, `refused` when a request is refused, and `otherModel`
// when another model answers than the page knows of.
export function startTry(link, { changed, refused, otherModel }) {
  atSettings = changed;
  startAnswers(link.answers, atChange);
  startWeights(link.weights, atWeights);
  startPicture(atPicture);
  startBefore(atChange);
  startOcclusion(() => ({ ...asked(), limits }));
  byId("phantoms").append(...phantomButtons(takePhantom));
  byId("logits").checked = link.logits;
  byId("sentences").checked = link.sentences;
  byId("steps").checked = link.steps;
  byId("logits").addEventListener("change", () => [redraw(), atSettings()]);
  byId("sentences").addEventListener("change", atChange);
  byId("steps").addEventListener("change", atChange);
  byId("question").addEventListener("input", atChange);
  byId("score").addEventListener("click", () => score(refused, otherModel));
  byId("cancel").addEventListener("click", cancel);
  startSharing(asked);
  atChange();
}

export const trySettings = () => ({
  answers: answerCards().length,
  weights: chosenWeights(),
  policy: chosenPolicy(),
  logits: byId("logits").checked,
  sentences: byId("sentences").checked,
  steps: byId("steps").checked,
});

// Takes what the server says of its model and its limits.
export async function takeServer(model, given, policy) {
  limits = given;
  fingerprint = model.fingerprint;
  learnFrom(limits);
  limitPicture(limits.image_bytes);
  limitBefore(limits);
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

// What would be scored now.
function asked() {
  return {
    question: byId("question").value,
    answers: answerTexts(),
    weights: currentWeights(),
    file: pictureFile(),
    further: furtherFiles(),
    history: earlierTurns(),
    before: beforeVersion(),
    policy: chosenPolicy(),
    department: chosenDepartment(),
    sentences: explainsSentences() && byId("sentences").checked,
    steps: byId("steps").checked,
  };
}

async function score(refused, otherModel) {
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
    const [now, cards, started] = [asked(), [...answerCards()], performance.now()];
    const reply = await scoreAnswers(now, mine.signal);
    takeRun({ asked: now, cards, texts: now.answers, reply, results: reply.results }, performance.now() - started);
    if (reply.model.fingerprint !== fingerprint) otherModel();
  } catch (error) {
    if (running !== mine) return; // a newer request has taken its place
    say(mine.signal.aborted ? "Cancelled." : "");
    if (!mine.signal.aborted) {
      showProblem(byId("problem"), error);
      refused(error);
    }
  } finally {
    if (running === mine) setBusy(false);
  }
}

function takeRun(next, milliseconds) {
  run = next;
  showEvidence(run.reply.model.evidence);
  for (const card of answerCards()) if (!run.cards.includes(card)) clearResult(card);
  say(summary(milliseconds));
  redraw();
}

function redraw() {
  const isThere = Boolean(run?.results.length);
  show(byId("key-line"), isThere);
  if (!isThere) return;
  show(
    byId("sentence-key"),
    run.results.some((result) => result.explain?.length),
  );
  drawResults(run.cards, run, currentWeights(), byId("logits").checked);
  const now = asked();
  const isOther = ["question", "file", "before", "policy", "department"].some((name) => run.asked[name] !== now[name]);
  for (const [place, card] of run.cards.entries())
    card.element.classList.toggle("stale", isOther || card.text.value !== run.texts[place]);
}

function summary(milliseconds) {
  const { results } = run;
  const failed = results.filter((result) => result.status === "error").length;
  const scored = results.map((result, place) => ({ ...result, place })).filter((result) => result.reward != null);
  const [first, second] = scored.sort((a, b) => b.reward - a.reward);
  const parts = [`${results.length - failed} of ${results.length} scored in ${milliseconds.toFixed(0)} ms.`];
  if (second) {
    parts.push(`${letterOf(first.place)} is first with ${digits(first.reward)}.`);
    const [a, b] = [first.logits.overall, second.logits.overall];
    if (a != null && b != null)
      parts.push(`Overall, it beats ${letterOf(second.place)} with probability ${digits(sigmoid(a - b))}.`);
  } else if (first) parts.push(`Reward ${digits(first.reward)}.`);
  if (byId("sentences").checked && !explainsSentences()) parts.push("This server does not explain sentences.");
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
  run = {
    ...run,
    cards: kept.map((place) => run.cards[place]),
    texts: kept.map((place) => run.texts[place]),
    results: kept.map((place) => run.results[place]),
  };
}

function atWeights() {
  redraw();
  drawMap();
  writeRecipe();
  atSettings();
}

function setBusy(isBusy) {
  show(byId("cancel"), isBusy);
  byId("answers").setAttribute("aria-busy", isBusy);
}

function say(text) {
  byId("status").textContent = text;
}
