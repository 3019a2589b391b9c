// The request as text to run elsewhere, and a link to the settings.

import { furtherFiles } from "./before.js";
import { byId } from "./dom.js";
import { pictureFile } from "./picture.js";
import { recipe } from "./recipes.js";
import { hasKey } from "./server.js";

const ENDINGS = { "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp" };
const buttons = document.querySelectorAll("[data-recipe]");

let kind = "curl";
let request = () => ({});

// `asked` returns what would be sent now.
export function startSharing(asked) {
  request = asked;
  byId("copy-request").addEventListener("click", (event) => copy(byId("recipe").textContent, event.target));
  byId("copy-link").addEventListener("click", (event) => copy(location.href, event.target));
  for (const button of buttons) button.addEventListener("click", () => take(button));
}

function take(button) {
  kind = button.dataset.recipe;
  for (const other of buttons) other.setAttribute("aria-pressed", other === button);
  writeRecipe();
}

// The file's own name may be a patient's, so that the text has another.
export function writeRecipe() {
  const files = [pictureFile(), ...furtherFiles()].filter(Boolean);
  const nameOf = (file, place) => `image${place ? place + 1 : ""}.${ENDINGS[file.type] ?? "dcm"}`;
  byId("recipe").textContent = recipe(kind, { ...request(), images: files.map(nameOf), withKey: hasKey() });
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
