// What every node's state was after every event, and where to find events: all indexes of a run.
//
// Nothing is replayed: each part of a state is a sorted list of (event, value), so that any moment
// is one binary search away.

import { lowerBound, upperBound } from "viewer/base.js";
import { CHANGE, POWERS, ROLES, kindOf } from "viewer/decode.js";
import { Times } from "viewer/times.js";

/** A value over the events of a run. */
class Series {
  constructor(initial) {
    this.initial = initial;
    this.events = [];
    this.values = [];
  }

  push(event, value) {
    const last = this.events.length - 1;
    if (this.events[last] === event) this.values[last] = value;
    else {
      this.events.push(event);
      this.values.push(value);
    }
  }

  /** The value after `event`. */
  at(event) {
    const place = upperBound(this.events, event) - 1;
    return place < 0 ? this.initial : this.values[place];
  }
}

/** The log of one server over time: each entry lives from one event to another. */
class Log {
  constructor() {
    this.index = [];
    this.term = [];
    this.text = [];
    this.key = [];
    this.born = [];
    this.died = [];
    /** The entry that was at the same index before. */
    this.before = [];
    /** Newest entry by index. */
    this.newest = new Map();
    this.live = [];
    this.liveFrom = 0;
    this.last = new Series(0);
    this.first = new Series(1);
  }

  append(event, index, term, text, key) {
    const entry = this.index.length;
    this.index.push(index);
    this.term.push(term);
    this.text.push(text);
    this.key.push(key);
    this.born.push(event);
    this.died.push(Infinity);
    this.before.push(this.newest.get(index) ?? -1);
    this.newest.set(index, entry);
    this.live.push(entry);
    this.last.push(event, index);
  }

  cut(event, from) {
    while (this.live.length > this.liveFrom && this.index[this.live.at(-1)] >= from) {
      this.died[this.live.pop()] = event;
    }
    this.last.push(event, from - 1);
  }

  release(event, first) {
    while (this.liveFrom < this.live.length && this.index[this.live[this.liveFrom]] < first) {
      this.died[this.live[this.liveFrom++]] = event;
    }
    this.first.push(event, first);
    if (this.liveFrom === this.live.length) this.last.push(event, first - 1);
  }

  /** The entry at `index` after `event`, as a number, or -1. */
  find(index, event) {
    let entry = this.newest.get(index) ?? -1;
    while (entry >= 0 && this.born[entry] > event) entry = this.before[entry];
    return entry >= 0 && this.died[entry] > event ? entry : -1;
  }
}

class ServerHistory {
  constructor() {
    this.role = new Series(0);
    this.term = new Series(0);
    this.vote = new Series(0);
    this.leader = new Series(0);
    this.commit = new Series(0);
    this.applied = new Series(0);
    this.durable = new Series(0);
    this.power = new Series(1);
    this.log = new Log();
    this.progressEnd = new Series(-1);
    this.progress = new Map();
    /** Stretches of one role in one term, or of a process that is down. */
    this.spans = { from: [], to: [], role: [], term: [], power: [] };
  }
}

/** Intervals that are sorted by their begin, as the times that they cover together. */
function union(intervals, end) {
  const [from, to] = [[], []];
  for (const one of intervals) {
    const until = one.to ?? end;
    if (to.length > 0 && one.from <= to.at(-1)) to[to.length - 1] = Math.max(to.at(-1), until);
    else {
      from.push(one.from);
      to.push(until);
    }
  }
  return { from: Float64Array.from(from), to: Float64Array.from(to) };
}

/** When the events of a list happened. */
export function timesOfEvents(run, list) {
  const times = new Float64Array(list.length);
  for (let place = 0; place < times.length; place++) times[place] = run.at[list[place]];
  return new Times(times);
}

/** Events of a list, with their times, for each node. */
export function eventsByNode(run, list) {
  const counts = new Uint32Array(run.nodes.length);
  for (const event of list) counts[run.node[event]]++;
  const ofNode = Array.from(counts, (count) => new Uint32Array(count));
  counts.fill(0);
  for (const event of list) ofNode[run.node[event]][counts[run.node[event]]++] = event;
  return ofNode.map((events) => ({ events, times: timesOfEvents(run, events) }));
}

/** Rare events that stay visible at every zoom. */
const MARKS = new Map([
  ["BecameLeader", "leader"], ["BecameCandidate", "election"], ["QuorumLost", "election"],
  ["LogTruncated", "trouble"], ["PowerLost", "down"], ["Killed", "down"], ["DiskFailed", "down"],
  ["StartFailed", "down"], ["Start", "start"], ["SnapshotInstalled", "snapshot"],
  ["Fault", "fault"], ["Heal", "fault"], ["LeftBroken", "fault"], ["Operator", "fault"],
  ["Dismissed", "election"], ["MembersChanged", "members"],
]);

/** What a message is about, in order of how much it says. */
export const CLASSES = ["election", "append", "client", "snapshot", "answer", "heartbeat", "other"];

function classOf(kind) {
  if (/Vote|TimeoutNow/.test(kind)) return 0;
  if (kind === "Append") return 1;
  if (/^(Request|Reply|Forward|Change|Put|Get)/.test(kind)) return 2;
  if (/Snapshot/.test(kind)) return 3;
  if (/^Heartbeat/.test(kind)) return 5;
  if (/Answer|Read/.test(kind)) return 4;
  if (kind === "CommitNotice") return 5;
  return 6;
}

/** Indexes of a run. */
export class History {
  constructor(run) {
    this.run = run;
    this.end = run.count === 0 ? 1 : Math.max(run.at[run.count - 1], 1);
    for (const band of run.bands) this.end = Math.max(this.end, band.to);
    this.classOfShape = run.shapes.map((shape) => classOf(shape.kind));
    this.markOfShape = run.shapes.map((shape) => MARKS.get(shape.kind) ?? null);
    this.servers = run.nodes.map((node) => (node.kind === "server" ? new ServerHistory() : null));
    this.#indexNodes();
    this.#indexMessages();
    this.#indexChanges();
    this.#indexOperations();
    this.bandsOf = run.nodes.map((_, node) => this.#bandsOf(node));
  }

  /** The bands of a node by kind, each list sorted by begin. */
  #bandsOf(node) {
    const kinds = new Map();
    for (const band of this.run.bands) {
      if (band.nodes.length > 0 && !band.nodes.includes(node)) continue;
      if (!kinds.has(band.kind)) kinds.set(band.kind, []);
      kinds.get(band.kind).push(band);
    }
    return new Map([...kinds].map(([kind, bands]) => {
      bands.sort((left, right) => left.from - right.from);
      return [kind, { bands, spans: union(bands, this.end) }];
    }));
  }

  /** The events of each node, and their times. */
  #indexNodes() {
    const { run } = this;
    const counts = new Uint32Array(run.nodes.length);
    for (let event = 0; event < run.count; event++) counts[run.node[event]]++;
    this.eventsOf = Array.from(counts, (count) => new Uint32Array(count));
    const timesOf = Array.from(counts, (count) => new Float64Array(count));
    counts.fill(0);
    const isMark = Uint8Array.from(this.markOfShape, (mark) => (mark === null ? 0 : 1));
    const { node, at, shape, cause } = run;
    this.marks = [];
    for (let event = 0; event < run.count; event++) {
      const of = node[event];
      const place = counts[of]++;
      this.eventsOf[of][place] = event;
      timesOf[of][place] = at[event];
      if (isMark[shape[event]] === 1 && cause[event] < 0) this.marks.push(event);
    }
    this.timesOf = timesOf.map((times) => new Times(times));
    this.markTimes = timesOfEvents(run, this.marks);
    const kinds = [...new Set(this.markOfShape)].filter((mark) => mark !== null);
    this.marksOf = kinds.map((mark) => ({ mark, ofNode: eventsByNode(run,
      this.marks.filter((event) => this.markOfShape[shape[event]] === mark)) }));
  }

  /** Arrivals by class, lost sends, and where each send arrived first. */
  #indexMessages() {
    const { run } = this;
    this.arrival = new Int32Array(run.count).fill(-1);
    this.target = new Int16Array(run.count).fill(-1);
    const names = new Map(run.nodes.map((node, number) => [node.name, number]));
    const targets = new Int16Array(run.strings.length).fill(-2);
    const toColumn = run.shapes.map((shape, number) => {
      const place = shape.fields.findIndex((field) => field.name === "to" && field.text);
      return place < 0 ? null : run.fields[number][place];
    });
    const classOf = Uint8Array.from(this.classOfShape);
    const { shape, cause, fate, row } = run;
    const arrivals = CLASSES.map(() => []);
    const lost = [];
    for (let event = 0; event < run.count; event++) {
      if (fate[event] !== 0) {
        const column = toColumn[shape[event]];
        if (column === null) continue;
        const text = column[row[event]];
        if (targets[text] === -2) targets[text] = names.get(run.strings[text]) ?? -1;
        this.target[event] = targets[text];
        if (fate[event] !== 1) lost.push(event);
      } else if (cause[event] >= 0) {
        const send = cause[event];
        if (this.arrival[send] < 0) this.arrival[send] = event;
        arrivals[classOf[shape[send]]].push(event);
      }
    }
    this.lost = Uint32Array.from(lost);
    this.lostTimes = timesOfEvents(run, lost);
    this.lostOf = eventsByNode(run, lost);
    this.arrivals = arrivals.map((events) => this.#flights(Uint32Array.from(events)));
  }

  /** Arrivals of one class; few fly much longer than the others: those are looked at one by one. */
  #flights(events) {
    const { at, cause } = this.run;
    const flight = (event) => at[event] - at[cause[event]];
    // A sample says what is long.
    const sample = new Float64Array(Math.min(events.length, 2000));
    const every = events.length / Math.max(sample.length, 1);
    for (let one = 0; one < sample.length; one++) sample[one] = flight(events[Math.floor(one * every)]);
    sample.sort();
    const usual = sample.length > 0 ? sample[Math.floor((sample.length - 1) * 0.995)] : 0;
    const slow = [];
    for (const event of events) if (flight(event) > usual) slow.push(event);
    return { events, times: timesOfEvents(this.run, events), usual, slow };
  }

  #indexChanges() {
    const { run } = this;
    const { changes } = run;
    const series = {
      [CHANGE.ROLE]: "role", [CHANGE.TERM]: "term", [CHANGE.VOTE]: "vote",
      [CHANGE.LEADER]: "leader", [CHANGE.COMMIT]: "commit", [CHANGE.APPLIED]: "applied",
      [CHANGE.DURABLE]: "durable", [CHANGE.POWER]: "power",
    };
    const shown = run.nodes.map(() => ({ from: 0, role: 0, term: 0, power: 1 }));
    for (let row = 0; row < changes.count; row++) {
      const event = changes.event[row];
      const node = run.node[event];
      const server = this.servers[node];
      if (!server) continue;
      const [x, y, z] = [changes.x[row], changes.y[row], changes.z[row]];
      const kind = changes.kind[row];
      if (series[kind]) server[series[kind]].push(event, x);
      else if (kind === CHANGE.APPEND) server.log.append(event, x, y, z, changes.key[row]);
      else if (kind === CHANGE.CUT) server.log.cut(event, x);
      else if (kind === CHANGE.FIRST) server.log.release(event, x);
      else if (kind === CHANGE.PROGRESS) this.#progress(server, event, x, y, z);
      else if (kind === CHANGE.PROGRESS_END) server.progressEnd.push(event, event);
      if (kind === CHANGE.ROLE || kind === CHANGE.TERM || kind === CHANGE.POWER) {
        const name = { [CHANGE.ROLE]: "role", [CHANGE.TERM]: "term", [CHANGE.POWER]: "power" }[kind];
        this.#span(server, shown[node], run.at[event], name, x);
      }
    }
    this.servers.forEach((server, node) => {
      if (server) this.#span(server, shown[node], this.end, "power", -1);
    });
  }

  #progress(server, event, peer, matched, next) {
    if (!server.progress.has(peer)) {
      server.progress.set(peer, { matched: new Series(0), next: new Series(0) });
    }
    const { matched: first, next: second } = server.progress.get(peer);
    first.push(event, matched);
    second.push(event, next);
  }

  #span(server, shown, at, name, value) {
    if (at > shown.from) {
      const { from, to, role, term, power } = server.spans;
      from.push(shown.from);
      to.push(at);
      role.push(shown.role);
      term.push(shown.term);
      power.push(shown.power);
      shown.from = at;
    }
    shown[name] = value;
  }

  #indexOperations() {
    const { run } = this;
    this.operationsOf = run.nodes.map(() => []);
    for (const operation of run.operations) this.operationsOf[operation.client].push(operation);
    this.operationTimesOf = this.operationsOf.map((operations) =>
      new Times(Float64Array.from(operations, (operation) => operation.from)));
    this.operationSpansOf = this.operationsOf.map((operations) => ({
      all: union(operations, this.end),
      bad: union(operations.filter((operation) => operation.outcome !== "ok"), this.end),
    }));
    this.keys = [...new Set(run.operations.flatMap((operation) => operation.keys))].sort();
  }

  /** Number of the last event that is not after `time`; -1 if none. */
  eventAt(time) {
    return upperBound(this.run.at, time) - 1;
  }

  /** The event of `node` that is nearest to `time`; -1 if it has none. */
  nearest(node, time) {
    const { times } = this.timesOf[node];
    const after = lowerBound(times, time);
    if (times.length === 0) return -1;
    const isBefore =
      after === times.length || (after > 0 && time - times[after - 1] < times[after] - time);
    return this.eventsOf[node][isBefore ? after - 1 : after];
  }

  /** What is shown of a server after `event`; -1 is before all. */
  state(node, event) {
    const server = this.servers[node];
    const name = (value) => (value === 0 ? "none" : this.run.nodes[value - 1].name);
    const ended = server.progressEnd.at(event);
    const role = ROLES[server.role.at(event)];
    const progress = [];
    if (role === "leader") {
      for (const [peer, { matched, next }] of server.progress) {
        const known = upperBound(matched.events, event) - 1;
        if (known < 0 || matched.events[known] < ended) continue;
        const values = { matched: matched.at(event), next: next.at(event) };
        progress.push({ peer: this.run.nodes[peer].name, ...values });
      }
    }
    return {
      role,
      power: POWERS[server.power.at(event)],
      term: server.term.at(event),
      vote: name(server.vote.at(event)),
      leader: name(server.leader.at(event)),
      first: server.log.first.at(event),
      last: server.log.last.at(event),
      durable: server.durable.at(event),
      commit: server.commit.at(event),
      applied: server.applied.at(event),
      progress,
    };
  }

  /** The entry of a server's log at `index` after `event`, or null. */
  entry(node, index, event) {
    const { log } = this.servers[node];
    const entry = log.find(index, event);
    if (entry < 0) return null;
    const { strings } = this.run;
    return {
      index,
      term: log.term[entry],
      text: strings[log.text[entry]] || "(from before the recording)",
      key: strings[log.key[entry]],
    };
  }

  /** The term that an event speaks of, or that its node was in. */
  termAt(event) {
    const server = this.servers[this.run.node[event]];
    return server ? server.term.at(event) : 0;
  }

  name(node) {
    return this.run.nodes[node].name;
  }

  kind(event) {
    return kindOf(this.run, event);
  }
}
