// Says what kind of labels stand behind the numbers, where nobody can miss it.

import { byId, make, show } from "./dom.js";
import { EVIDENCE } from "./words.js";

export function showEvidence(evidence) {
  const [kind, head, text] = EVIDENCE[evidence] ?? EVIDENCE.none;
  const [banner, chip] = [byId("evidence"), byId("evidence-chip")];
  banner.className = `banner ${kind}`;
  banner.replaceChildren(make("b", {}, head), ` ${text}`);
  chip.className = `chip ${kind}`;
  chip.textContent = `evidence: ${evidence}`;
  show(banner, true);
  show(chip, true);
}
