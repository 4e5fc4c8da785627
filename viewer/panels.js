// What is known of a moment: the selected event, every server's state and log, a key's history.

import { formatCount, formatTime, make } from "viewer/base.js";
import { fieldsOf, isReceive } from "viewer/decode.js";

const STATE_ROWS = [
  ["role", "role"], ["power", "process"], ["term", "term"], ["vote", "vote"],
  ["leader", "believes to lead"], ["last", "last entry"], ["durable", "durable"],
  ["commit", "committed"], ["applied", "applied"],
];

const exact = (run, event) => formatTime(run.at[event], run.clock, 1000);

/** What kind of thing an event is, in words. */
export function headline(history, event) {
  const { run } = history;
  const kind = history.kind(event);
  if (isReceive(run, event)) return `${kind} from ${history.name(run.node[run.cause[event]])}`;
  const target = history.target[event];
  if (target >= 0) return `${kind} to ${history.name(target)}`;
  return kind;
}

/** The panel of the selected event. `go(event)` selects another. */
export function eventPanel(stage, go, choose) {
  const { run, history, event } = stage;
  if (event < 0) return [make("p", { class: "hint" }, "Nothing has happened yet.")];
  const node = run.node[event];
  const parts = [
    make("h2", {}, headline(history, event)),
    make("p", { class: "where" },
      `${history.name(node)} · ${exact(run, event)} · event ${formatCount(event)}`),
  ];
  parts.push(...violationsAt(run, event));
  parts.push(fieldList(run, event));
  parts.push(links(stage, go));
  if (history.servers[node]) {
    parts.push(stateTable(history, node, event));
    const progress = history.state(node, event).progress;
    if (progress.length) parts.push(progressTable(progress));
  }
  parts.push(keyButtons(stage, choose));
  return parts.filter(Boolean);
}

function violationsAt(run, event) {
  return run.violations.filter((one) => one.event === event).map((violation) =>
    make("div", { class: "violation", role: "alert" },
      make("strong", {}, violation.check), make("p", {}, violation.text)));
}

function fieldList(run, event) {
  const list = make("dl", { class: "fields" });
  for (const [name, value] of fieldsOf(run, event)) {
    if (name === "to" && isReceive(run, event)) continue;
    list.append(make("dt", {}, name), make("dd", {}, String(value)));
  }
  const fates = { 1: "delivered", 2: "lost on its way", 3: "still on its way at the end" };
  if (run.fate[event]) {
    list.append(make("dt", {}, "became of it"), make("dd", {}, fates[run.fate[event]]));
  }
  return list.children.length ? list : null;
}

function links(stage, go) {
  const { run, history, event } = stage;
  const jump = (to, text) =>
    make("button", { class: "link", type: "button", onclick: () => go(to) }, text);
  const row = make("p", { class: "links" });
  const cause = run.cause[event];
  if (cause >= 0) {
    row.append(jump(cause, `sent by ${history.name(run.node[cause])} at ${exact(run, cause)}`));
  }
  const arrival = history.arrival[event];
  if (arrival >= 0) {
    row.append(jump(arrival,
      `arrives at ${history.name(run.node[arrival])} at ${exact(run, arrival)}`));
  }
  return row.children.length ? row : null;
}

/** The state of the event's server before and after it. */
function stateTable(history, node, event) {
  const before = history.state(node, event - 1);
  const after = history.state(node, event);
  const body = make("tbody");
  for (const [field, name] of STATE_ROWS) {
    const differs = before[field] !== after[field];
    body.append(make("tr", { class: differs ? "differs" : null },
      make("th", { scope: "row" }, name),
      make("td", {}, String(before[field])),
      make("td", {}, String(after[field]))));
  }
  return make("table", { class: "state" },
    make("caption", {}, `State of ${history.name(node)}`),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, ""),
      make("th", { scope: "col" }, "before"), make("th", { scope: "col" }, "after"))),
    body);
}

function progressTable(progress) {
  const rows = progress.map(({ peer, matched, next }) =>
    make("tr", {}, make("th", { scope: "row" }, peer),
      make("td", {}, String(matched)), make("td", {}, String(next))));
  return make("table", { class: "state" },
    make("caption", {}, "What it knows of its followers"),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, ""),
      make("th", { scope: "col" }, "durable there"),
      make("th", { scope: "col" }, "next to send"))),
    make("tbody", {}, ...rows));
}

/** Buttons for the keys that an event is about. */
function keyButtons(stage, choose) {
  const { run, history, event } = stage;
  const keys = new Set();
  const { changes } = run;
  let row = lowerRow(changes.event, event);
  for (; row < changes.count && changes.event[row] === event; row++) {
    const key = run.strings[changes.key[row]];
    if (changes.kind[row] === 10 && key) keys.add(key);
  }
  for (const [name, value] of fieldsOf(run, event)) {
    if (name === "key") keys.add(String(value));
    if (name !== "what") continue;
    for (const word of String(value).split(/[^\w-]+/)) if (history.keys.includes(word)) keys.add(word);
  }
  if (keys.size === 0) return null;
  return make("p", { class: "links" }, "Key: ", ...[...keys].map((key) =>
    make("button", { class: "link", type: "button", onclick: () => choose(key) }, key)));
}

function lowerRow(events, event) {
  let [from, to] = [0, events.length];
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (events[middle] < event) from = middle + 1;
    else to = middle;
  }
  return from;
}

/** The panel of a client's operation. */
export function operationPanel(stage, operation, goTime, choose) {
  const { run, history } = stage;
  const time = (at) => formatTime(at, run.clock, 1000);
  const list = make("dl", { class: "fields" });
  const add = (name, value) => list.append(make("dt", {}, name), make("dd", {}, value));
  add("asked", time(operation.from));
  if (operation.point !== null) add("took effect", `${time(operation.point)}, index ${operation.index}`);
  add("told", operation.to === null ? "never" : time(operation.to));
  add("outcome", operation.outcome);
  if (operation.answer) add("answer", operation.answer);
  const keys = operation.keys.map((key) =>
    make("button", { class: "link", type: "button", onclick: () => choose(key) }, key));
  return [
    make("h2", {}, operation.text),
    make("p", { class: "where" }, `${history.name(operation.client)} · operation ${operation.number}`),
    list,
    make("p", { class: "links" }, "Key: ", ...keys),
    make("p", { class: "links" },
      make("button", { class: "link", type: "button", onclick: () => goTime(operation.from) },
        "go to its beginning")),
  ];
}

/** What happened to a key: every operation that names it, and the entries that changed it. */
export function keyPanel(stage, key, choose, goTime, show) {
  const { run, history } = stage;
  const select = make("select", { "aria-label": "key", onchange: (event) => choose(event.target.value) },
    make("option", { value: "" }, "choose a key…"),
    ...history.keys.slice(0, 5000).map((one) => make("option", { value: one, selected: one === key }, one)));
  const parts = [make("p", { class: "links" }, select)];
  if (!key) return parts;
  const operations = run.operations.filter((operation) => operation.keys.includes(key));
  const order = (operation) => operation.point ?? operation.from;
  operations.sort((left, right) => order(left) - order(right));
  const shown = operations.slice(0, 500);
  const rows = shown.map((operation) => {
    const isNow = operation.from <= run.at[stage.event] && (operation.to ?? Infinity) >= run.at[stage.event];
    return make("tr", { class: isNow ? "now" : null },
      make("td", {}, make("button", { class: "link", type: "button",
        onclick: () => { goTime(operation.point ?? operation.from); show(operation); } },
      formatTime(order(operation), run.clock, 1000))),
      make("td", {}, operation.text),
      make("td", { class: operation.outcome }, operation.outcome === "ok" ? operation.answer : operation.outcome),
      make("td", {}, history.name(operation.client)));
  });
  parts.push(make("table", { class: "key" },
    make("caption", {}, `${operations.length} operations on ${key}, in the order in which they took effect`),
    make("thead", {}, make("tr", {}, ...["effect", "operation", "answer", "client"].map((name) =>
      make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows)));
  if (shown.length < operations.length) {
    parts.push(make("p", { class: "hint" }, `the first ${shown.length} are shown`));
  }
  return parts;
}

/** The logs of all servers at one moment, index by index. */
export function logsPanel(stage, rowCount, back, key) {
  const { run, history, event } = stage;
  const servers = run.nodes.flatMap((node, number) => (node.kind === "server" ? [number] : []));
  const states = servers.map((node) => history.state(node, event));
  const newest = Math.max(0, ...states.map((state) => state.last));
  const to = Math.max(newest - back, Math.min(newest, rowCount));
  const from = Math.max(1, to - rowCount + 1);
  const head = make("tr", {}, make("th", { scope: "col", class: "index" }, "index"));
  servers.forEach((node, place) => head.append(serverHead(history.name(node), states[place])));
  const body = make("tbody");
  for (let index = to; index >= from; index--) body.append(logRow(stage, servers, states, index, key));
  const table = make("table", { class: "logs" },
    make("caption", { class: "quiet" },
      `Logs after event ${formatCount(Math.max(event, 0))}, at ${event < 0 ? "the beginning" : exact(run, event)}`),
    make("thead", {}, head), body);
  return { table, newest, from, to };
}

function serverHead(name, state) {
  const isDown = state.power !== "up";
  const role = isDown ? state.power : state.role;
  return make("th", { scope: "col", class: isDown ? "down" : state.role },
    make("span", { class: "name" }, name), ` ${role}, term ${state.term}`,
    make("span", { class: "marks" },
      `committed ${state.commit} · durable ${state.durable} · applied ${state.applied}`));
}

function logRow(stage, servers, states, index, key) {
  const { history, event } = stage;
  const row = make("tr", {}, make("th", { scope: "row", class: "index" }, String(index)));
  const entries = servers.map((node) => history.entry(node, index, event));
  const terms = new Set(entries.filter(Boolean).map((entry) => entry.term));
  entries.forEach((entry, place) => {
    const state = states[place];
    if (!entry) {
      const isReleased = index < state.first;
      row.append(make("td", { class: "absent" }, isReleased ? "in the snapshot" : ""));
      return;
    }
    const isCommitted = index <= state.commit;
    const isDurable = index <= state.durable;
    const isApplied = index <= state.applied;
    const says = isApplied ? "applied" : isCommitted ? "committed" : isDurable ? "durable" : "in memory";
    const classes = ["entry", isCommitted ? "committed" : "open", isDurable ? "" : "volatile"];
    if (terms.size > 1) classes.push("conflict");
    if (key && entry.key === key) classes.push("chosen");
    row.append(make("td", { class: classes.join(" "), title: `${entry.text} (${says})` },
      make("span", { class: "mark", "aria-label": says },
        isApplied ? "✓" : isCommitted ? "●" : isDurable ? "◐" : "○"),
      make("span", { class: "term", style: `--hue:${(entry.term * 67) % 360}` }, String(entry.term)),
      make("span", { class: "text" }, entry.text)));
  });
  return row;
}
