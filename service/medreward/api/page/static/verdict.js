// Policies of the server, and the verdict of one on an answer: the rule that decided, and by how much.

import { byId, digits, make, show } from "./dom.js";
import { getJson } from "./server.js";

const policies = new Map();

// Fills the list of policies. Without any the panel stays hidden.
export async function startPolicies(chosen, changed) {
  policies.clear();
  for (const policy of (await getJson("v1/policies")).policies) policies.set(policy.name, policy);
  const select = byId("policy");
  select.replaceChildren(
    make("option", { value: "" }, "none: scores only"),
    ...[...policies.keys()].map((name) => make("option", { value: name }, name)),
  );
  select.value = policies.has(chosen) ? chosen : "";
  select.onchange = () => [describe(), changed()];
  byId("department").onchange = changed;
  show(byId("policy-panel"), policies.size > 0);
  describe();
}

export const chosenPolicy = () => byId("policy").value;
export const chosenDepartment = () => byId("department").value;

// Says what the chosen policy is, and offers the departments that have thresholds of their own.
function describe() {
  const policy = policies.get(chosenPolicy());
  const departments = Object.keys(policy?.departments ?? {});
  byId("department").replaceChildren(
    make("option", { value: "" }, "none"),
    ...departments.map((name) => make("option", { value: name }, name)),
  );
  show(byId("department-row"), departments.length > 0);
  byId("policy-about").textContent = policy ? aboutPolicy(policy) : "";
}

function aboutPolicy({ version, rules, otherwise, false_allow: bound }) {
  const count = rules.length === 1 ? "one rule" : `${rules.length} rules in order`;
  const says = [`Version ${version}: ${count}, else ${otherwise}.`];
  if (bound) {
    says.push(`At most ${digits(100 * bound.at_most, 1)} % of wrong answers are allowed,`);
    says.push(`with confidence ${digits(bound.confidence)},`);
    says.push(`by ${bound.wrong} wrong answers about ${bound.images} images.`);
  } else says.push("No labelled data stand behind its thresholds.");
  return says.join(" ");
}

// Returns a line with the verdict of a screened result and the rule that gave it; null where no policy was asked.
export function verdictLine(result, policy) {
  if (!result.verdict) return null;
  const because = (result.reasons ?? []).map((reason) => reasonText(reason, policies.get(policy)?.rules ?? []));
  const margin = result.margin == null ? "" : `margin ${digits(result.margin, 3)}`;
  return make(
    "p",
    { class: "verdict" },
    make("b", { class: result.verdict }, result.verdict),
    make("span", { class: "note" }, margin),
    make("span", { class: "why" }, because.join("; ")),
  );
}

function reasonText({ rule: name, dimension, value, threshold }, rules) {
  const rule = rules.find((one) => one.name === name);
  if (rule?.flag) return `rule ${name}: the flag ${rule.flag} is there`;
  const measured = [rule?.measure, dimension && (rule ? `of ${dimension}` : dimension)].filter(Boolean).join(" ");
  if (value == null) return threshold == null ? `rule ${name}` : `rule ${name}: there is no ${measured}`;
  const compared = `${measured} ${digits(value, 3)} ${value < threshold ? "<" : "≥"} ${digits(threshold, 3)}`;
  return name === "otherwise" ? `no rule holds, the last for ${compared}` : `rule ${name}: ${compared}`;
}
