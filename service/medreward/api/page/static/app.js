// Starts the page: views, key, theme, shortcuts, and the connection to the server.

import { byId, make, show } from "./dom.js";
import { startOperator, watchOperator } from "./operator.js";
import { readLink, writeLink } from "./permalink.js";
import { inOneLine } from "./problems.js";
import { getJson, hasKey, useKey } from "./server.js";
import { addAnswer, cancel, startTry, takeServer, trySettings } from "./try.js";

const AGAIN_MS = 2000;
const AWAY = new Set(["asleep", "not_ready", "unreachable"]);
const THEMES = ["auto", "light", "dark"];
const dark = matchMedia("(prefers-color-scheme: dark)");
const link = readLink();
let view = link.view;
let theme = localStorage.getItem("medreward.theme") ?? "auto";
let waiting = null;

const SHORTCUTS = [
  [
    "Ctrl + Enter",
    "Score the answers",
    (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey),
    () => byId("score").click(),
  ],
  ["Esc", "Cancel what is running", (event) => event.key === "Escape", cancel],
  ["Alt + A", "Add an answer", (event) => event.altKey && event.code === "KeyA", addAnswer],
  ["Alt + Q", "Go to the question", (event) => event.altKey && event.code === "KeyQ", () => byId("question").focus()],
  ["Alt + I", "Choose an image", (event) => event.altKey && event.code === "KeyI", () => byId("file").click()],
  [
    "Alt + V",
    "Change the view",
    (event) => event.altKey && event.code === "KeyV",
    () => showView(view === "try" ? "operator" : "try"),
  ],
  [
    "?",
    "Show these shortcuts",
    (event) => event.key === "?" && !event.target.matches("input, textarea"),
    () => byId("help").showModal(),
  ],
];

function showView(name) {
  view = name;
  for (const other of ["try", "operator"]) {
    const tab = byId(`tab-${other}`);
    tab.setAttribute("aria-selected", other === name);
    tab.tabIndex = other === name ? 0 : -1;
    show(byId(`view-${other}`), other === name);
  }
  watchOperator(name === "operator");
  saveLink();
}

function saveLink() {
  writeLink({ view, ...trySettings(), policy: trySettings().policy || (waiting === null ? "" : link.policy) });
}

function startTabs() {
  for (const name of ["try", "operator"]) {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => showView(name));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = name === "try" ? "operator" : "try";
      showView(other);
      byId(`tab-${other}`).focus();
    });
  }
}

function startTheme() {
  const button = byId("theme-button");
  const put = () => {
    document.documentElement.dataset.theme = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
    button.textContent = `Theme: ${theme}`;
  };
  dark.addEventListener("change", put);
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem("medreward.theme", theme);
    put();
  });
  put();
}

function startKey() {
  byId("key-button").addEventListener("click", () => openKey(byId("key-panel").hidden));
  byId("key-panel").addEventListener("submit", (event) => {
    event.preventDefault();
    takeKey(byId("key").value);
  });
  byId("key-forget").addEventListener("click", () => {
    byId("key").value = "";
    takeKey("");
  });
}

function takeKey(text) {
  useKey(text);
  byId("key-problem").textContent = "";
  openKey(false);
  byId("key-button").focus();
  connect();
  watchOperator(view === "operator");
}

function openKey(isOpen) {
  show(byId("key-panel"), isOpen);
  byId("key-button").setAttribute("aria-expanded", isOpen);
  byId("key-button").textContent = hasKey() ? "Key: given" : "Key";
  show(byId("api-link"), !hasKey()); // a link sends no key
  if (isOpen) byId("key").focus();
}

const needsKey = (error) => error.status === 401 || error.status === 403;

// A refusal that another key would avoid is explained at the key's field. A server that is away is asked until it is
// back.
function atRefusal(error) {
  if (AWAY.has(error.code)) connect();
  if (!needsKey(error)) return;
  openKey(true);
  byId("key-problem").textContent = inOneLine(error);
}

function startShortcuts() {
  byId("shortcuts").append(...SHORTCUTS.flatMap(([keys, about]) => [make("dt", {}, keys), make("dd", {}, about)]));
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("skip").addEventListener("click", () => byId("main").focus());
  addEventListener("keydown", (event) => {
    const shortcut = SHORTCUTS.find(([, , isPressed]) => isPressed(event));
    if (!shortcut || (byId("help").open && shortcut[0] !== "?")) return;
    if (event.key !== "Escape") event.preventDefault();
    shortcut[3]();
  });
}

// Asks the server for its model and limits, again and again until it is ready.
async function connect() {
  clearTimeout(waiting);
  try {
    const [model, limits] = await Promise.all([getJson("v1/model"), getJson("v1/limits")]);
    await takeServer(model, limits, trySettings().policy || link.policy);
    await getJson("readyz");
    waiting = null;
    say("ready", `${model.name} ${model.version} · ${model.runtime}`);
  } catch (error) {
    say("not-ready", error.message);
    if (needsKey(error)) atRefusal(error);
    else waiting = setTimeout(connect, AGAIN_MS);
  }
}

function say(state, text) {
  document.querySelector("#served .dot").className = `dot ${state}`;
  byId("served-text").textContent = text;
}

waiting = 0; // until the first answer, the link keeps the policy that it names
startTheme();
startKey();
startTabs();
startShortcuts();
startTry(link, { changed: saveLink, refused: atRefusal, otherModel: connect });
startOperator(atRefusal);
showView(view);
openKey(false);
connect();
