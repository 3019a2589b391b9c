// The operator's view: what goes through the server now, by its own metrics, asked for while the view is seen.

import { lineChart } from "./charts.js";
import { byId, digits, make } from "./dom.js";
import { clearProblem, showProblem } from "./problems.js";
import { getJson } from "./server.js";
import { isTraffic, toolsFor, total, withNewest } from "./traffic.js";

const EVERY_MS = 2000;
const ROOM = 150; // five minutes
const PAUSE_SECONDS = 10; // of the asking, after which the charts begin anew

const percent = (value) => (value == null ? "–" : `${digits(100 * value, 0)} %`);
const milliseconds = (value) =>
  value == null ? "–" : value < 1 ? `${digits(1000 * value, value < 0.01 ? 1 : 0)} ms` : `${digits(value)} s`;

const TILES = [
  ["Requests per second", (value) => digits(value, 1), ({ rate }) => rate("medreward_requests_total", isTraffic)],
  ["Latency, median", milliseconds, ({ latency }) => latency(0.5)],
  ["Latency, 99th percentile", milliseconds, ({ latency }) => latency(0.99)],
  ["In flight", (value) => digits(value, 0), ({ now }) => total(now, "medreward_requests_in_flight")],
  [
    "Queue, part of its limit",
    percent,
    ({ now }) => total(now, "medreward_queue_cost") / (total(now, "medreward_queue_cost_limit") || 1),
  ],
  [
    "Answers scored per second",
    (value) => digits(value, 1),
    ({ rate }) => rate("medreward_items_total", ({ outcome }) => outcome === "ok"),
  ],
  ["Refused per second", (value) => digits(value, 1), ({ rate }) => rate("medreward_refused_total")],
  [
    "Score cache, hits",
    percent,
    ({ share }) =>
      share("medreward_cache_hits_total", "medreward_cache_requests_total", ({ cache }) => cache === "scores"),
  ],
];
const LISTS = [
  ["Requests", "route", "medreward_requests_total", (labels) => `${labels.route} · ${labels.code}`, isTraffic],
  ["Answers", "outcome", "medreward_items_total", ({ outcome }) => outcome],
  ["Verdicts", "policy and verdict", "medreward_verdicts_total", ({ policy, verdict }) => `${policy} · ${verdict}`],
  ["Shadow", "served verdict and second one", "medreward_shadow_agreement_total", ({ outcome }) => outcome],
  ["Flags", "flag", "medreward_flags_total", ({ flag }) => flag],
  ["Refused", "reason", "medreward_refused_total", ({ reason }) => reason],
  ["Caches, look-ups", "cache", "medreward_cache_requests_total", ({ cache }) => cache],
  ["Workers replaced", "reason", "medreward_worker_restarts_total", ({ reason }) => reason],
];

let snapshots = [];
let history = TILES.map(() => []);
let isSeen = false;
let timer = null;
let stop = null;
let atRefusal = () => {};

export function startOperator(refused) {
  atRefusal = refused;
  document.addEventListener("visibilitychange", () => watchOperator(isSeen));
}

// Begins or ends the asking. Nothing is asked while the view or the whole page is hidden.
export function watchOperator(isSeenNow) {
  isSeen = isSeenNow;
  clearTimeout(timer);
  stop?.abort();
  if (!isSeen || document.hidden) return;
  stop = new AbortController();
  poll(stop.signal);
}

async function poll(signal) {
  try {
    take(await getJson("page/now", { signal, seconds: 10 }));
    clearProblem(byId("operator-problem"));
  } catch (error) {
    if (signal.aborted) return;
    showProblem(byId("operator-problem"), error);
    byId("operator-status").textContent = "";
    atRefusal(error);
    if (error.status === 401 || error.status === 403) return;
  }
  timer = setTimeout(poll, EVERY_MS, signal);
}

function take(now) {
  const last = snapshots.at(-1);
  if (last && now.at - last.at > PAUSE_SECONDS) history = TILES.map(() => []);
  snapshots = withNewest(snapshots, now);
  const tools = toolsFor(snapshots);
  for (const [place, [, , measure]] of TILES.entries())
    history[place] = [...history[place], measure(tools)].slice(-ROOM);
  draw(now);
}

function draw(now) {
  const state = now.ready ? "Ready" : `Not ready: ${now.reason}`;
  byId("operator-status").textContent =
    `${state} · medreward ${now.version} · the last five minutes, every two seconds`;
  byId("tiles").replaceChildren(...TILES.map(([title, write], place) => tile(title, write, history[place])));
  byId("lists").replaceChildren(...LISTS.map((list) => listOf(now, ...list)).filter(Boolean), ...driftList(now));
}

function tile(title, write, values) {
  const newest = values.at(-1);
  const known = values.filter((value) => value != null);
  const most = known.length ? write(Math.max(...known)) : "–";
  return make(
    "div",
    { class: "tile" },
    make("h3", {}, title),
    make("p", { class: "value" }, write(newest)),
    lineChart(values, ROOM, `${title}: now ${write(newest)}, at most ${most} in the last five minutes`),
    make(
      "p",
      { class: "scale" },
      make("span", {}, "5 min ago"),
      make("span", {}, `most ${most}`),
      make("span", {}, "now"),
    ),
  );
}

// Returns a table of counts since the server started and in the last minute, as far as it was seen; null without any.
function listOf(now, title, head, name, nameOf, isMeant = () => true) {
  const rows = new Map();
  const add = (snapshot, place) => {
    for (const { labels, value } of snapshot.metrics[name] ?? []) {
      if (!isMeant(labels)) continue;
      const counts = rows.get(nameOf(labels)) ?? [0, 0];
      counts[place] += value;
      rows.set(nameOf(labels), counts);
    }
  };
  add(now, 0);
  add(snapshots[0], 1);
  if (!rows.size) return null;
  const sorted = [...rows].sort(([, [a]], [, [b]]) => b - a);
  return panel(
    title,
    [head, `last ${Math.round(now.at - snapshots[0].at)} s`, "all"],
    sorted.map(([row, [all, before]]) => [row, digits(all - before, 0), digits(all, 0)]),
  );
}

function driftList(now) {
  const statistics = now.metrics.medreward_drift_statistic ?? [];
  const alarms = new Set((now.metrics.medreward_drift_alarm ?? []).map(({ labels }) => labels.dimension));
  if (!statistics.length) return [];
  return [
    panel(
      "Drift",
      ["dimension", "statistic", "alarm"],
      statistics.map(({ labels, value }) => [
        labels.dimension,
        digits(value),
        alarms.has(labels.dimension) ? "yes" : "no",
      ]),
    ),
  ];
}

function panel(title, heads, rows) {
  const cells = ([first, ...rest]) =>
    make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((cell) => make("td", {}, cell)));
  return make(
    "section",
    { class: "panel" },
    make("h3", {}, title),
    make(
      "table",
      { class: "counts" },
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows.map(cells)),
    ),
  );
}
