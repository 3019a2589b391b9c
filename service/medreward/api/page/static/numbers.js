// The six dimensions and the arithmetic of the reward, which is that of the server to the last bit.

export const DIMENSIONS = ["accuracy", "relevance", "comprehensiveness", "creativity", "responsiveness", "overall"];

// Returns the sum of numbers, rounded once, as Python's math.fsum does (Shewchuk's partial sums).
export function exactSum(values) {
  const partials = [];
  for (let x of values) {
    let kept = 0;
    for (let y of partials) {
      if (Math.abs(x) < Math.abs(y)) [x, y] = [y, x];
      const high = x + y;
      const low = y - (high - x);
      if (low) partials[kept++] = low;
      x = high;
    }
    partials.length = kept;
    partials.push(x);
  }
  return rounded(partials);
}

// Adds partial sums from the largest down; where the rest is exactly half a unit, its sign decides.
function rounded(partials) {
  let at = partials.length;
  if (!at) return 0;
  let high = partials[--at];
  let low = 0;
  while (at && !low) {
    const x = high;
    const y = partials[--at];
    high = x + y;
    low = y - (high - x);
  }
  if (at && low && Math.sign(low) === Math.sign(partials[at - 1])) {
    const twice = low * 2;
    const x = high + twice;
    if (twice === x - high) high = x;
  }
  return high;
}

// Returns the reward of logits; null where a dimension that has a weight has no logit.
export function rewardOf(logits, weights) {
  const weighted = DIMENSIONS.filter((dimension) => weights[dimension]);
  if (weighted.some((dimension) => logits[dimension] == null)) return null;
  return exactSum(weighted.map((dimension) => weights[dimension] * logits[dimension]));
}

// Returns the rank of each reward, 1 for the highest; equal ones share a rank, and null has none.
export function ranks(rewards) {
  return rewards.map((reward) =>
    reward == null ? null : 1 + rewards.filter((other) => other != null && other > reward).length,
  );
}

export const sigmoid = (x) => 1 / (1 + Math.exp(-x));

// Returns the value below which this part of the observations lie, from the counts of a histogram's buckets (each with
// its upper bound, in order). null where nothing was observed. Within a bucket they count as spread evenly.
export function quantile(part, bounds, counts) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (!total) return null;
  let below = 0;
  for (const [place, count] of counts.entries()) {
    if (count && below + count >= part * total) {
      const from = place ? bounds[place - 1] : 0;
      if (bounds[place] === Infinity) return from;
      return from + ((bounds[place] - from) * (part * total - below)) / count;
    }
    below += count;
  }
  return bounds.at(-2) ?? null;
}
