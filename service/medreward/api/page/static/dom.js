// Small helpers for the document. No text is ever read as markup.

export const byId = (id) => document.getElementById(id);

// Returns a new element. Properties that begin with "on" are listeners; a value of false or null is left out.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export function show(element, isShown) {
  element.hidden = !isShown;
}

export const letterOf = (place) => String.fromCharCode(65 + place);

// Returns a number as people read it; a dash where there is none.
export function digits(value, places = 2) {
  if (value == null || Number.isNaN(value)) return "–";
  const text = value.toFixed(places);
  return text.startsWith("-") ? `−${text.slice(1)}` : text;
}

export const signed = (value) => (value > 0 ? `+${digits(value)}` : digits(value));

export const nextFrame = () => new Promise((done) => requestAnimationFrame(done));
