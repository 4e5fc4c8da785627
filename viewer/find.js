// Search and filter: which events a query means.
//
//   kind:Append  node:server1  term:3  key:k2  fate:lost  is:received  "some text"  -kind:Heartbeat
//
// All words must hold. A word without a name is looked for in kinds, nodes and values.

import { lowerBound } from "viewer/base.js";
import { CHANGE, FATES, isReceive } from "viewer/decode.js";
import { eventsByNode } from "viewer/history.js";

/** Words of a query: { name, value, not }. */
export function parse(query) {
  const words = query.match(/-?(?:\w+:)?(?:"[^"]*"|\S+)/g) ?? [];
  return words.map((word) => {
    const not = word.length > 1 && word.startsWith("-");
    const rest = not ? word.slice(1) : word;
    const [, name, value] = rest.match(/^(?:(kind|node|term|key|fate|is):)?"?(.*?)"?$/s);
    return { name: name ?? "text", value: value.toLowerCase(), not };
  });
}

/** Events that a query means, as a mask and in order; null for a query that means all. */
export function find(history, query) {
  const words = parse(query).filter((word) => word.value !== "");
  if (words.length === 0) return null;
  const { run } = history;
  const tests = words.map((word) => testOf(history, word));
  const mask = new Uint8Array(run.count);
  const events = [];
  for (let event = 0; event < run.count; event++) {
    if (tests.every((test, place) => test(event) !== words[place].not)) {
      mask[event] = 1;
      events.push(event);
    }
  }
  let ofNode = null;
  /** When the matches of a node happened. */
  const of = (node) => (ofNode ??= eventsByNode(run, events))[node].times;
  return { query, mask, events: Uint32Array.from(events), of };
}

/** The match after (or before) `event`; the first (or last) one when there is no more. */
export function step(found, event, forward) {
  const { events } = found;
  if (events.length === 0) return -1;
  if (forward) {
    const place = lowerBound(events, event + 1);
    return events[place === events.length ? 0 : place];
  }
  const place = lowerBound(events, event) - 1;
  return events[place < 0 ? events.length - 1 : place];
}

function testOf(history, { name, value }) {
  const { run } = history;
  const from = (event) => (isReceive(run, event) ? run.cause[event] : event);
  if (name === "kind") {
    const ofShape = run.shapes.map((shape) => shape.kind.toLowerCase().startsWith(value));
    return (event) => ofShape[run.shape[event]];
  }
  if (name === "node") {
    const ofNode = run.nodes.map((node) => isNamed(node.name, value));
    return (event) => ofNode[run.node[event]];
  }
  if (name === "term") {
    const term = Number(value);
    const places = run.shapes.map((shape) =>
      shape.fields.findIndex((field) => field.name === "term" && !field.text));
    return (event) => {
      const source = from(event);
      const shape = run.shape[source];
      if (places[shape] >= 0) return run.fields[shape][places[shape]][run.row[source]] === term;
      return history.termAt(event) === term;
    };
  }
  if (name === "fate") {
    return (event) => run.fate[event] !== 0 && FATES[run.fate[event]].startsWith(value);
  }
  if (name === "is") {
    const tests = {
      received: (event) => isReceive(run, event),
      sent: (event) => run.fate[event] !== 0,
      local: (event) => run.fate[event] === 0 && run.cause[event] < 0,
      rare: (event) => history.markOfShape[run.shape[event]] !== null,
    };
    return tests[value] ?? (() => false);
  }
  return name === "key" ? keyTest(history, value, from) : textTest(history, value, from);
}

function isNamed(name, value) {
  if (name === value) return true;
  const [, letter, digits] = value.match(/^([a-z])(\d+)$/) ?? [];
  return letter !== undefined && name.startsWith(letter) && name.replace(/^\D+/, "") === digits;
}

/** What is about a key: fields that name it, entries and requests that touch it. */
function keyTest(history, value, from) {
  const { run } = history;
  const escaped = value.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const word = new RegExp(`(^|[^\\w-])${escaped}($|[^\\w-])`, "i");
  const matches = run.strings.map((text) => text.toLowerCase() === value || word.test(text));
  const touched = new Uint8Array(run.count);
  const { changes } = run;
  for (let row = 0; row < changes.count; row++) {
    if (changes.kind[row] !== CHANGE.APPEND) continue;
    if (matches[changes.key[row]] || matches[changes.z[row]]) touched[changes.event[row]] = 1;
  }
  const ofFields = inFields(run, matches, from);
  return (event) => touched[event] === 1 || ofFields(event);
}

function textTest(history, value, from) {
  const { run } = history;
  const matches = run.strings.map((text) => text.toLowerCase().includes(value));
  const ofShape = run.shapes.map((shape) => shape.kind.toLowerCase().includes(value));
  const ofNode = run.nodes.map((node) => node.name.toLowerCase().includes(value));
  const ofFields = inFields(run, matches, from);
  return (event) => ofShape[run.shape[event]] || ofNode[run.node[event]] || ofFields(event);
}

function inFields(run, matches, from) {
  const places = run.shapes.map((shape) =>
    shape.fields.flatMap((field, place) => (field.text ? [place] : [])));
  return (event) => {
    const source = from(event);
    const shape = run.shape[source];
    return places[shape].some((place) => matches[run.fields[shape][place][run.row[source]]]);
  };
}
