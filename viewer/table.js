// The run as a table: for screen readers, and for whoever likes to read line by line.

import { formatCount, formatTime, lowerBound, make } from "viewer/base.js";
import { fieldsOf } from "viewer/decode.js";
import { headline } from "viewer/panels.js";

const ROWS = 100;

/** A page of events around the selected one; `go(event)` selects another. */
export function tableView(stage, go) {
  const { run, history, found, event } = stage;
  const events = found ? found.events : null;
  const count = events ? events.length : run.count;
  const place = events ? lowerBound(events, event) : Math.max(event, 0);
  const from = Math.floor(Math.min(place, Math.max(count - 1, 0)) / ROWS) * ROWS;
  const to = Math.min(from + ROWS, count);
  const nth = (number) => (events ? events[number] : number);
  const body = make("tbody");
  for (let number = from; number < to; number++) body.append(row(stage, nth(number), go));
  const page = (target, text) =>
    make("button", { type: "button", disabled: target < 0 || target >= count,
      onclick: () => go(nth(target)) }, text);
  const what = events ? `events that match “${found.query}”` : "events";
  return make("div", { class: "table-view" },
    make("p", { class: "pages" },
      page(0, "first"), page(from - ROWS, "earlier"), page(from + ROWS, "later"), page(count - 1, "last"),
      ` ${formatCount(from + 1)} to ${formatCount(to)} of ${formatCount(count)} ${what}`),
    make("table", { class: "events" },
      make("caption", { class: "quiet" }, `Events of ${run.title}`),
      make("thead", {}, make("tr", {}, ...["event", "time", "node", "what", "details", "then"].map((name) =>
        make("th", { scope: "col" }, name)))),
      body));
}

function row(stage, event, go) {
  const { run, history } = stage;
  const node = run.node[event];
  const details = fieldsOf(run, event).filter(([name]) => name !== "to")
    .map(([name, value]) => `${name} ${value}`).join(", ");
  const fate = ["", "", "lost", "still on its way"][run.fate[event]];
  const violation = run.violations.find((one) => one.event === event);
  const isSelected = event === stage.event;
  return make("tr", { class: isSelected ? "selected" : violation ? "broken" : null,
    "aria-current": isSelected ? "true" : null },
  make("td", {}, make("button", { class: "link", type: "button", onclick: () => go(event) }, String(event))),
  make("td", {}, formatTime(run.at[event], run.clock, 1000)),
  make("td", {}, history.name(node)),
  make("td", {}, violation ? `${headline(history, event)}: VIOLATION ${violation.check}` : headline(history, event)),
  make("td", {}, details),
  make("td", {}, [fate, changesOf(history, event)].filter(Boolean).join("; ")));
}

/** How the node's state is different after an event, in words. */
function changesOf(history, event) {
  const node = history.run.node[event];
  if (!history.servers[node]) return "";
  const [before, after] = [history.state(node, event - 1), history.state(node, event)];
  const names = { role: "role", power: "process", term: "term", vote: "vote", leader: "leader",
    last: "last entry", durable: "durable", commit: "committed", applied: "applied" };
  return Object.keys(names).filter((field) => before[field] !== after[field])
    .map((field) => `${names[field]} ${after[field]}`).join(", ");
}
