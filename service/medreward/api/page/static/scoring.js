// Sends the answers to be scored or screened.

import { base64Of } from "./picture.js";
import { postJson } from "./server.js";

const SECONDS = 30;

let canExplain = false;

export const explainsSentences = () => canExplain;

// Learns from the server's limits whether it can say what each sentence adds.
export function learnFrom(limits) {
  canExplain = "explain_sentences" in limits;
}

// Returns an item of a request: its question, further files and history, and its first image, or null, as base64.
export async function itemOf({ question, further, history }, image, responses) {
  const images = [...(image ? [image] : []), ...(await Promise.all(further.map(base64Of)))];
  const shown = images.length > 1 ? { images } : { image: images[0] ?? null };
  return { ...shown, question, responses, ...(history.length && { history }) };
}

// Returns the server's reply. `asked` has what itemOf takes, answers, weights, file, policy, department and, where they
// are wanted, sentences to be explained and steps along the answer.
export async function scoreAnswers(asked, signal) {
  const { answers, weights, file, policy, department } = asked;
  const item = await itemOf(asked, file ? await base64Of(file) : null, answers);
  if (department) item.department = department;
  const body = { items: [item], weights, ...(policy && { policy }) };
  const headers = { "Content-Type": "application/json", "X-Deadline-Ms": String(SECONDS * 1000) };
  const route = policy ? "v1/screen" : "v1/score";
  const send = (options) => postJson(route, { ...body, ...options }, { signal, seconds: SECONDS + 5, headers });
  const along = asked.steps ? { steps: "sentences" } : {};
  if (asked.sentences && canExplain) return withSentences(send, along);
  return send(asked.steps ? { options: along } : {});
}

// Asks for sentences too, beside other options. A server that refuses that is asked again without it, and from then on.
async function withSentences(send, others) {
  const isUnknown = (error) => error?.field?.includes("explain") || error?.code === "unsupported_field";
  try {
    const reply = await send({ options: { explain: "sentences", ...others } });
    if (!reply.results.every((result) => isUnknown(result.error))) return reply;
  } catch (error) {
    if (!isUnknown(error)) throw error;
  }
  canExplain = false;
  return send(others.steps ? { options: others } : {});
}
