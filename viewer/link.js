// The address of exactly this view: everything that can be chosen, in the page's fragment.

const NAMES = ["from", "to", "now", "event", "query", "only", "cone", "hidden", "key", "tab", "table",
  "theme", "stage", "logs"];

/** The fragment of a view. */
export function write(view) {
  const words = new URLSearchParams();
  for (const name of NAMES) {
    const value = view[name];
    if (value === undefined || value === null || value === "" || value === false) continue;
    words.set(name, value === true ? "1" : String(value));
  }
  return `#${words}`;
}

/** What a fragment says; what it does not say is left out. */
export function read(fragment) {
  const words = new URLSearchParams(fragment.replace(/^#/, ""));
  const view = {};
  for (const name of ["from", "to", "now", "event", "stage"]) {
    const number = Number(words.get(name));
    if (words.has(name) && Number.isFinite(number)) view[name] = number;
  }
  for (const name of ["query", "hidden", "key", "tab", "theme"]) {
    if (words.has(name)) view[name] = words.get(name);
  }
  for (const name of ["only", "cone", "table"]) view[name] = words.get(name) === "1";
  return view;
}
