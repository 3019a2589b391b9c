// The image that is scored: chosen, dropped or pasted, and shown as it is or as the model sees it.

import { byId, show } from "./dom.js";
import { inOneLine } from "./problems.js";
import { ask } from "./server.js";

const chosen = { file: null, name: "", seen: null };
let atChange = () => {};
let mostBytes = Infinity;
let latest = 0;

export const pictureFile = () => chosen.file;
export const pictureName = () => chosen.name;

export function limitPicture(bytes) {
  mostBytes = bytes;
}

export function startPicture(changed) {
  atChange = changed;
  byId("file").addEventListener("change", (event) => choose(event.target.files[0]));
  byId("no-image").addEventListener("click", () => choosePicture(null, ""));
  byId("as-seen").addEventListener("change", draw);
  addEventListener("paste", (event) => choose(event.clipboardData?.files[0]));
  const drop = byId("drop");
  for (const kind of ["dragenter", "dragover"]) addEventListener(kind, (event) => hover(event, true));
  addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    hover(event, false);
    choose(event.dataTransfer.files[0]);
  });
}

// A file that is dropped anywhere on the page is taken: otherwise the browser would leave the page for it.
function hover(event, isOver) {
  event.preventDefault();
  byId("drop").classList.toggle("over", isOver);
}

function choose(file) {
  if (!file) return;
  if (file.size > mostBytes)
    say(`The file has ${file.size} bytes, and this server takes images of up to ${mostBytes}.`);
  else choosePicture(file, file.name || "pasted image");
  byId("file").value = "";
}

// Takes a file, or null for no image.
export function choosePicture(file, name) {
  Object.assign(chosen, { file, name, seen: null });
  byId("image-name").textContent = name || "none";
  byId("image-name").title = name;
  show(byId("overlay"), false);
  show(byId("where-legend"), false);
  draw();
  atChange();
}

async function draw() {
  const turn = ++latest;
  say("");
  try {
    const shown =
      chosen.file && (byId("as-seen").checked || (await isDicom(chosen.file)) ? await pictureAsSeen() : chosen.file);
    if (turn === latest) await put(shown);
  } catch (error) {
    if (turn !== latest) return;
    await put(null);
    say(inOneLine(error));
  }
}

async function put(file) {
  const image = byId("shown");
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  byId("drop").classList.toggle("has-image", Boolean(file));
  show(byId("picture"), file);
  show(byId("drop-hint"), !file);
  if (!file) return image.removeAttribute("src");
  image.src = URL.createObjectURL(file);
  await image.decode().catch(() => {
    throw new Error("This browser cannot show the file. The server may still read it: try it as the model sees it.");
  });
}

async function isDicom(file) {
  return (await file.slice(128, 132).text()) === "DICM";
}

// Returns the image as the model sees it, a PNG of the model's size that the server makes. Fails with a Refusal.
export async function pictureAsSeen(signal) {
  const { file } = chosen;
  if (chosen.seen) return chosen.seen;
  const headers = { "Content-Type": "application/octet-stream" };
  const seen = await (await ask("page/preview", { method: "POST", body: file, headers, signal })).blob();
  if (chosen.file === file) chosen.seen = seen;
  return seen;
}

// Returns the bytes of a file as base64.
export function base64Of(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error("The file cannot be read. It may have been moved: choose it again."));
    reader.readAsDataURL(file);
  });
}

function say(text) {
  byId("image-problem").textContent = text;
}
