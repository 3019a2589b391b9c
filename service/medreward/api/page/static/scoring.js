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

// Returns the server's reply. `asked` has question, answers, weights, file, policy, department and, where sentences are
// to be explained, sentences.
export async function scoreAnswers(asked, signal) {
  const { question, answers, weights, file, policy, department } = asked;
  const image = file ? await base64Of(file) : null;
  const item = { image, question, responses: answers, ...(department && { department }) };
  const body = { items: [item], weights, ...(policy && { policy }) };
  const headers = { "Content-Type": "application/json", "X-Deadline-Ms": String(SECONDS * 1000) };
  const route = policy ? "v1/screen" : "v1/score";
  const send = (options) => postJson(route, { ...body, ...options }, { signal, seconds: SECONDS + 5, headers });
  return asked.sentences && canExplain ? withSentences(send) : send({});
}

// Asks for sentences too. A server that refuses the option is asked again without it, and from then on.
async function withSentences(send) {
  const isUnknown = (error) => error?.field?.includes("explain") || error?.code === "unsupported_field";
  try {
    const reply = await send({ options: { explain: "sentences" } });
    if (!reply.results.every((result) => isUnknown(result.error))) return reply;
  } catch (error) {
    if (!isUnknown(error)) throw error;
  }
  canExplain = false;
  return send({});
}
