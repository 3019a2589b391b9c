// Shows why something failed, in plain words, with what to do next.

import { make, show } from "./dom.js";

// Fills a box with a Refusal, or with an error of the page itself.
export function showProblem(box, error) {
  const about = [error.code, error.field, error.requestId && `request ${error.requestId}`].filter(Boolean).join(" · ");
  box.replaceChildren(
    make("h3", {}, error.message),
    ...(error.advice ? [make("p", {}, error.advice)] : []),
    ...(about ? [make("p", {}, make("code", {}, about))] : []),
  );
  show(box, true);
}

export function clearProblem(box) {
  box.replaceChildren();
  show(box, false);
}

export const inOneLine = (error) => [error.message, error.advice].filter(Boolean).join(" ");
