// Talks to the server that gave this page. All addresses are relative to it, so that a proxy may put it anywhere.

import { ADVICE } from "./words.js";

const KEY = "medreward.key";
const SECONDS = 60;

let key = sessionStorage.getItem(KEY) ?? "";
// Small and urgent, unless the key may not use that lane.
let lane = "interactive";

export const hasKey = () => key !== "";
export const urlOf = (path) => new URL(path, document.baseURI).href;

export function useKey(text) {
  key = text.trim();
  lane = "interactive";
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

// Why there is no answer: a problem of the server, or none that could be reached.
export class Refusal extends Error {
  constructor(problem) {
    super(problem.detail);
    Object.assign(this, problem);
  }

  get advice() {
    return ADVICE[this.code] ?? "";
  }
}

// Returns the response. Fails with a Refusal, and with an AbortError where `signal` stopped it. A key that may not use
// the lane gets the other one.
export async function ask(path, { bulk = false, seconds = SECONDS, headers = {}, ...options } = {}) {
  const first = bulk ? "bulk" : lane;
  const other = first === "bulk" ? "interactive" : "bulk";
  try {
    return await once(path, { seconds, headers, ...options }, first);
  } catch (error) {
    if (error.code !== "forbidden" || error.field !== "X-Lane") throw error;
    lane = other;
    return once(path, { seconds, headers, ...options }, other);
  }
}

async function once(path, { signal, seconds, headers, ...options }, inLane) {
  const until = AbortSignal.timeout(seconds * 1000);
  const sent = { ...headers, "X-Lane": inLane, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(urlOf(path), {
      ...options,
      headers: sent,
      signal: signal ? AbortSignal.any([signal, until]) : until,
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal(
      until.aborted
        ? { code: "too_slow", detail: `No answer within ${seconds} seconds.` }
        : { code: "unreachable", detail: "The server cannot be reached." },
    );
  }
  if (!response.ok) throw new Refusal(await problemOf(response));
  return response;
}

async function problemOf(response) {
  try {
    const { code, detail, field, request_id: requestId } = await response.json();
    return { status: response.status, code, detail, field, requestId };
  } catch {
    const detail = `Something between this page and the server answered with status ${response.status}.`;
    return { status: response.status, code: "unknown", detail };
  }
}

export const getJson = async (path, options) => (await ask(path, options)).json();

export async function postJson(path, body, options) {
  const sent = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return (await ask(path, { ...sent, ...options })).json();
}
