// A small line chart of the last minutes, drawn as SVG.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [300, 52];

function shape(tag, properties) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  return element;
}

// Returns a chart of these values, the newest at the right; null is a gap. `room` is how many values it has room for.
export function lineChart(values, room, about) {
  const top = Math.max(...values.filter((value) => value != null), 0) || 1;
  const point = (value, place) => [
    WIDTH - (values.length - 1 - place) * (WIDTH / (room - 1)),
    HEIGHT - 3 - (value / top) * (HEIGHT - 8),
  ];
  const chart = shape("svg", {
    class: "chart",
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": about,
  });
  chart.append(shape("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 3, y2: HEIGHT - 3 }));
  for (const stretch of stretches(values, point)) {
    const line = stretch.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`);
    const [from, to] = [stretch[0][0], stretch.at(-1)[0]];
    chart.append(shape("path", { class: "area", d: `M${from} ${HEIGHT - 3}L${line.join("L")}L${to} ${HEIGHT - 3}Z` }));
    chart.append(shape("path", { class: "curve", d: `M${line.join("L")}${stretch.length === 1 ? "h1" : ""}` }));
  }
  return chart;
}

// Returns the points of each stretch without a gap.
function stretches(values, point) {
  const found = [[]];
  for (const [place, value] of values.entries()) {
    if (value == null) found.push([]);
    else found.at(-1).push(point(value, place));
  }
  return found.filter((stretch) => stretch.length);
}
