// Where on the image a number hangs: each patch of a grid is hidden in turn, and the answer is scored again.

import { byId, digits, letterOf, make, nextFrame, show } from "./dom.js";
import { DIMENSIONS, rewardOf } from "./numbers.js";
import { base64Of, pictureAsSeen, pictureFile } from "./picture.js";
import { inOneLine } from "./problems.js";
import { itemOf } from "./scoring.js";
import { postJson } from "./server.js";

const GREY = "rgb(128 128 128)";
const AT_ONCE = 9; // patches in a request: so many that the bar moves, and a cancel saves work

let asked = () => ({});
let running = null;
let map = null;

// `request` returns question, answers, weights and limits as they are now.
export function startOcclusion(request) {
  asked = request;
  byId("where-number").append(...["reward", ...DIMENSIONS].map((name) => make("option", { value: name }, name)));
  byId("where-number").addEventListener("change", drawMap);
  byId("where-run").addEventListener("click", look);
  byId("where-cancel").addEventListener("click", cancelLook);
}

export function cancelLook() {
  running?.abort();
}

export function offerAnswersToLook(count) {
  const select = byId("where-answer");
  const before = select.value;
  select.replaceChildren(
    ...Array.from({ length: count }, (_, place) => make("option", { value: place }, letterOf(place))),
  );
  if (before && before < count) select.value = before;
}

// Forgets the map: it is of another image, question or answer.
export function forgetMap() {
  cancelLook();
  map = null;
  show(byId("overlay"), false);
  show(byId("where-legend"), false);
}

async function look() {
  const { question, answers } = asked();
  const answer = answers[byId("where-answer").value];
  const problem = byId("where-problem");
  problem.textContent = "";
  if (!pictureFile()) problem.textContent = "Choose an image first.";
  else if (!question.trim()) problem.textContent = "Write a question first.";
  if (problem.textContent) return;
  forgetMap();
  const mine = (running = new AbortController());
  setRunning(true);
  try {
    map = await measure(question, answer, Number(byId("where-grid").value), mine.signal);
    drawMap();
  } catch (error) {
    if (!mine.signal.aborted) problem.textContent = inOneLine(error);
  } finally {
    if (running === mine) setRunning(false);
  }
}

function setRunning(isRunning) {
  show(byId("where-cancel"), isRunning);
  show(byId("where-progress"), isRunning);
  byId("where-run").disabled = isRunning;
  byId("where-progress").value = 0;
}

// Returns the logits of the whole image and of the image without each patch.
async function measure(question, answer, grid, signal) {
  const picture = await createImageBitmap(await pictureAsSeen(signal));
  const patches = Array.from({ length: grid * grid }, (_, n) => n);
  const [whole] = await scored(picture, question, answer, grid, [null], signal);
  const hidden = [];
  const most = Math.max(1, Math.min(AT_ONCE, asked().limits.items ?? AT_ONCE));
  for (let at = 0; at < patches.length; at += most) {
    hidden.push(...(await scored(picture, question, answer, grid, patches.slice(at, at + most), signal)));
    byId("where-progress").value = hidden.length / patches.length;
    await nextFrame();
  }
  return { grid, whole, hidden, width: picture.width, height: picture.height };
}

async function scored(picture, question, answer, grid, patches, signal) {
  const images = await Promise.all(patches.map((patch) => withoutPatch(picture, grid, patch)));
  const items = await Promise.all(images.map((image) => itemOf({ ...asked(), question }, image, [answer])));
  const { results } = await postJson("v1/score", { items }, { signal, bulk: true });
  const failed = results.find((result) => result.status === "error");
  if (failed) throw new Error(failed.error.message);
  return results.map((result) => result.logits);
}

async function withoutPatch(picture, grid, patch) {
  const canvas = make("canvas", { width: picture.width, height: picture.height });
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0);
  pen.fillStyle = GREY;
  if (patch != null) pen.fillRect(...boxOf(patch, grid, picture));
  return base64Of(await new Promise((done) => canvas.toBlob(done, "image/png")));
}

function boxOf(patch, grid, { width, height }) {
  const edge = (n, size) => Math.round((n * size) / grid);
  const [column, row] = [patch % grid, Math.floor(patch / grid)];
  const [left, top] = [edge(column, width), edge(row, height)];
  return [left, top, edge(column + 1, width) - left, edge(row + 1, height) - top];
}

// Draws how much the chosen number falls when a patch is hidden.
export function drawMap() {
  if (!map) return;
  const name = byId("where-number").value;
  const valueOf = (logits) => (name === "reward" ? rewardOf(logits, asked().weights) : logits[name]);
  const falls = map.hidden.map((logits) => valueOf(map.whole) - valueOf(logits));
  const most = Math.max(1e-9, ...falls.map(Math.abs));
  const canvas = byId("overlay");
  Object.assign(canvas, { width: map.width, height: map.height });
  const pen = canvas.getContext("2d");
  for (const [patch, fall] of falls.entries()) {
    const strength = 0.75 * (Math.abs(fall) / most);
    pen.fillStyle = fall > 0 ? `rgb(40 190 190 / ${strength})` : `rgb(240 140 50 / ${strength})`;
    pen.fillRect(...boxOf(patch, map.grid, map));
  }
  show(canvas, true);
  show(byId("where-legend"), true);
  const answer = byId("where-answer").selectedOptions[0].textContent;
  const number = name === "reward" ? "the reward" : `the logit of ${name}`;
  byId("where-scale").textContent = [
    `Full colour: hiding the patch changes ${number} of answer ${answer} by ${digits(most)}.`,
    `The strongest patch is ${placeOf(falls)}.`,
  ].join(" ");
}

// Returns in words where the patch lies whose absence changes most.
function placeOf(falls) {
  const strongest = falls.reduce((best, fall, patch) => (Math.abs(fall) > Math.abs(falls[best]) ? patch : best), 0);
  return `in row ${1 + Math.floor(strongest / map.grid)}, column ${1 + (strongest % map.grid)}`;
}
