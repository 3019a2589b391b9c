// Policies of the server, and the verdict of one on an answer: the rule that decided, and by how much.

import { byId, digits, make, show } from "./dom.js";
import { getJson } from "./server.js";

// Fills the list of policies. A server without them has no such route, and the panel stays hidden.
export async function startPolicies(chosen, changed) {
  const policies = await getJson("v1/policies").then(namesOf).catch(() => []);
  const select = byId("policy");
  select.replaceChildren(make("option", { value: "" }, "none: scores only"), ...policies.map((name) => make("option", { value: name }, name)));
  select.value = policies.includes(chosen) ? chosen : "";
  select.onchange = changed;
  show(byId("policy-panel"), policies.length > 0);
}

const namesOf = (reply) => reply.policies.map((policy) => policy.name);

export const chosenPolicy = () => byId("policy").value;

// Returns a line with the verdict of a screened result; null where no policy was asked.
export function verdictLine(result) {
  if (!result.verdict) return null;
  const because = (result.reasons ?? []).map(reasonText).join("; ");
  const margin = result.margin == null ? "" : `margin ${digits(result.margin, 3)}`;
  return make("p", { class: "verdict" }, make("b", { class: result.verdict }, result.verdict), make("span", {}, because), make("span", { class: "note" }, margin));
}

function reasonText({ rule, dimension, value, threshold }) {
  const compared = value == null ? "" : `: ${dimension ?? "value"} ${digits(value, 3)}${threshold == null ? "" : ` against ${digits(threshold, 3)}`}`;
  return `rule ${rule}${compared}`;
}
