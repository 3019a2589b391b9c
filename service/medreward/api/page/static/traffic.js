// What snapshots of the server's metrics say: totals, rates, shares and quantiles.

import { quantile } from "./numbers.js";

const KEPT_SECONDS = 61;
const WINDOW_SECONDS = 11; // of a quantile, so that a few requests are enough for one
// What the page and probes themselves ask is no traffic.
const OWN = new Set(["/", "/page/now", "/page/{name}", "/livez", "/readyz", "unmatched"]);

export const isTraffic = ({ route }) => !OWN.has(route);

// Returns the snapshots of the last minute, the newest last. A server that has started again has only the newest.
export function withNewest(snapshots, now) {
  const last = snapshots.at(-1);
  const hasRestarted = last && total(now, "medreward_requests_total") < total(last, "medreward_requests_total");
  return [...(hasRestarted ? [] : snapshots.filter((one) => now.at - one.at <= KEPT_SECONDS)), now];
}

export function total(snapshot, name, isMeant = () => true) {
  return (snapshot.metrics[name] ?? [])
    .filter(({ labels }) => isMeant(labels))
    .reduce((sum, { value }) => sum + value, 0);
}

// Returns the newest snapshot, and functions that compare it with earlier ones. These return null where there is
// nothing to compare.
export function toolsFor(snapshots) {
  const now = snapshots.at(-1);
  const before = snapshots.at(-2);
  const earlier = snapshots.find((one) => now.at - one.at <= WINDOW_SECONDS);
  const since = (old, name, isMeant) => total(now, name, isMeant) - total(old, name, isMeant);
  return {
    now,
    rate: (name, isMeant) => (before ? since(before, name, isMeant) / (now.at - before.at || 1) : null),
    latency: (part) => latencyOf(part, earlier, now),
    share: (hits, all, isMeant) => {
      const count = since(earlier, all, isMeant);
      return count ? since(earlier, hits, isMeant) / count : null;
    },
  };
}

function latencyOf(part, earlier, now) {
  const [old, fresh] = [earlier, now].map(cumulative);
  const bounds = [...fresh.keys()].sort((a, b) => a - b);
  const upTo = bounds.map((bound) => fresh.get(bound) - (old.get(bound) ?? 0));
  const counts = upTo.map((count, place) => count - (upTo[place - 1] ?? 0));
  return quantile(part, bounds, counts);
}

// Returns how many requests took at most each bound, over all routes that are traffic.
function cumulative(snapshot) {
  const found = new Map();
  for (const { labels, value } of snapshot.metrics.medreward_request_duration_seconds_bucket ?? []) {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    if (isTraffic(labels)) found.set(bound, (found.get(bound) ?? 0) + value);
  }
  return found;
}
