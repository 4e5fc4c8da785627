// Small tools that every module uses.

/** Place of the first element of a sorted array that is not below `value`. */
export function lowerBound(array, value, from = 0, to = array.length) {
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (array[middle] < value) from = middle + 1;
    else to = middle;
  }
  return from;
}

/** Place of the first element of a sorted array that is above `value`. */
export function upperBound(array, value, from = 0, to = array.length) {
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (array[middle] <= value) from = middle + 1;
    else to = middle;
  }
  return from;
}

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** A time as people read it, with as many decimals as `step` (in the run's unit) needs. */
export function formatTime(time, clock, step = 1) {
  if (clock === "logical") return `step ${Math.round(time)}`;
  const seconds = time / 1e9;
  if (step >= 1e9) return `${seconds.toFixed(0)} s`;
  const decimals = clamp(Math.ceil(9 - Math.log10(Math.max(step, 1))), 0, 9);
  return `${seconds.toFixed(decimals)} s`;
}

/** A length of time in the unit that suits it. */
export function formatSpan(span, clock) {
  if (clock === "logical") return `${Math.round(span)} steps`;
  const units = [["s", 1e9], ["ms", 1e6], ["µs", 1e3], ["ns", 1]];
  const [name, size] = units.find(([, size]) => span >= size) ?? units[3];
  return `${+(span / size).toPrecision(3)} ${name}`;
}

/** A number with thin spaces between thousands. */
export const formatCount = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, "\u202f");

/** An element with attributes, properties that begin with "on", and children. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export const byId = (id) => document.getElementById(id);
