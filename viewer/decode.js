// Reads a run from its columns. The layout is drawn in docs/internals/viewer.md.

const MAGIC = "kvraft-run 1\n";

/** Nodes have numbers of two bytes. */
const OWNERS_MAX = 1 << 16;

export const FATES = ["", "delivered", "lost", "pending"];
export const ROLES = ["follower", "pre-candidate", "candidate", "leader"];
export const POWERS = ["up", "down", "paused"];
export const BANDS = ["crash", "pause", "partition", "link", "disk", "clock"];
export const OUTCOMES = ["ok", "failed", "unknown"];

/** Kinds of change, by number. */
export const CHANGE = {
  ROLE: 1, TERM: 2, VOTE: 3, LEADER: 4, COMMIT: 5, APPLIED: 6, DURABLE: 7,
  FIRST: 8, CUT: 9, APPEND: 10, PROGRESS: 11, PROGRESS_END: 12, POWER: 13,
};

/** A run from the text of a page's data element. */
export async function decodeText(text) {
  const trimmed = text.trim();
  const bytes = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(trimmed)
    : Uint8Array.from(atob(trimmed), (letter) => letter.charCodeAt(0));
  return decodeBytes(bytes);
}

/** A run from what `Run::encode` gave. */
export async function decodeBytes(compressed) {
  const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const text = new TextDecoder();
  if (text.decode(bytes.subarray(0, MAGIC.length)) !== MAGIC) {
    throw new Error("this is not a recorded run, or one of another version");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const begin = MAGIC.length + 4;
  const end = begin + view.getUint32(MAGIC.length, true);
  const header = JSON.parse(text.decode(bytes.subarray(begin, end)));
  return new Decoder(header, bytes, end).run();
}

class Decoder {
  constructor(header, bytes, at) {
    this.header = header;
    this.columns = new Map();
    for (const { name, bytes: size, count } of header.columns) {
      this.columns.set(name, { bytes: bytes.subarray(at, at + size), count });
      at += size;
    }
    if (at !== bytes.length) throw new Error("the recorded run is cut short");
  }

  /** The numbers of a column; none if nobody wrote it. */
  plain(name, Type = Float64Array) {
    const column = this.columns.get(name);
    if (!column) return new Type(0);
    const { bytes, count } = column;
    const numbers = new Type(count);
    let at = 0;
    for (let row = 0; row < count; row++) {
      let byte = bytes[at++];
      let number = byte & 0x7f;
      let scale = 128;
      while (byte & 0x80) {
        byte = bytes[at++];
        number += (byte & 0x7f) * scale;
        scale *= 128;
      }
      numbers[row] = number;
    }
    return numbers;
  }

  bytes(name) {
    return this.columns.get(name)?.bytes ?? new Uint8Array(0);
  }

  /** Numbers from differences; `owners[row]` says whose earlier number a row differs from. */
  difference(name, owners = null, Type = Float64Array) {
    const column = this.columns.get(name);
    if (!column) return new Type(0);
    const { bytes, count } = column;
    const numbers = new Type(count);
    const before = new Float64Array(owners ? OWNERS_MAX : 1);
    let at = 0;
    for (let row = 0; row < count; row++) {
      let byte = bytes[at++];
      let folded = byte & 0x7f;
      let scale = 128;
      while (byte & 0x80) {
        byte = bytes[at++];
        folded += (byte & 0x7f) * scale;
        scale *= 128;
      }
      const owner = owners === null ? 0 : owners[row];
      numbers[row] = before[owner] += unfold(folded);
    }
    return numbers;
  }

  run() {
    const { title, command, version, seed, clock, nodes, truncated, shapes, violations } =
      this.header;
    const strings = this.strings();
    const run = {
      title, command, version, seed, clock, nodes, truncated, shapes, violations, strings,
    };
    this.events(run);
    run.changes = this.changes(run);
    run.bands = this.bands(strings);
    run.operations = this.operations(strings);
    return run;
  }

  strings() {
    const sizes = this.plain("string.size", Uint32Array);
    const bytes = this.bytes("string.bytes");
    const text = new TextDecoder();
    const strings = new Array(sizes.length);
    let at = 0;
    const whole = text.decode(bytes);
    if (whole.length === bytes.length) {
      // A byte is a letter: all are decoded at once.
      for (let row = 0; row < sizes.length; row++) strings[row] = whole.slice(at, (at += sizes[row]));
      return strings;
    }
    for (let row = 0; row < sizes.length; row++) {
      strings[row] = text.decode(bytes.subarray(at, at + sizes[row]));
      at += sizes[row];
    }
    return strings;
  }

  events(run) {
    run.at = this.difference("event.at");
    run.count = run.at.length;
    run.node = this.plain("event.node", Uint16Array);
    run.shape = this.plain("event.shape", Uint32Array);
    run.fate = this.bytes("event.fate");
    const back = this.plain("event.cause", Uint32Array);
    run.cause = new Int32Array(run.count);
    // Which row of its shape's columns an event has.
    run.row = new Uint32Array(run.count);
    const rows = run.shapes.map(() => 0);
    for (let event = 0; event < run.count; event++) {
      run.cause[event] = back[event] === 0 ? -1 : event - back[event];
      run.row[event] = rows[run.shape[event]]++;
    }
    const nodes = run.shapes.map((_, shape) => new Uint16Array(rows[shape]));
    for (let event = 0; event < run.count; event++) {
      nodes[run.shape[event]][run.row[event]] = run.node[event];
    }
    run.fields = run.shapes.map((shape, number) =>
      shape.fields.map((field, place) => {
        const name = `field.${number}.${place}`;
        return field.text
          ? this.plain(name, Uint32Array)
          : this.difference(name, nodes[number]);
      }),
    );
  }

  /** Changes of state: what each means is in `history`. */
  changes(run) {
    const event = this.difference("change.event", null, Uint32Array);
    const kind = this.bytes("change.kind");
    const counts = new Uint32Array(256);
    for (let row = 0; row < kind.length; row++) counts[kind[row]]++;
    // Rows of each kind, and whose state they change.
    const rowsOf = Array.from(counts, (count) => new Uint32Array(count));
    const ownersOf = Array.from(counts, (count) => new Uint16Array(count));
    counts.fill(0);
    for (let row = 0; row < kind.length; row++) {
      const of = kind[row];
      const place = counts[of]++;
      rowsOf[of][place] = row;
      ownersOf[of][place] = run.node[event[row]];
    }
    const x = new Float64Array(kind.length);
    const y = new Float64Array(kind.length);
    const z = new Float64Array(kind.length);
    const key = new Uint32Array(kind.length);
    const spread = (number, name, into, read = "difference") => {
      const rows = rowsOf[number];
      const values = read === "plain" ? this.plain(name) : this.difference(name, ownersOf[number]);
      for (let place = 0; place < rows.length; place++) into[rows[place]] = values[place];
    };
    const single = {
      role: CHANGE.ROLE, term: CHANGE.TERM, vote: CHANGE.VOTE, leader: CHANGE.LEADER,
      commit: CHANGE.COMMIT, applied: CHANGE.APPLIED, durable: CHANGE.DURABLE,
      first: CHANGE.FIRST, cut: CHANGE.CUT, power: CHANGE.POWER,
    };
    for (const [name, number] of Object.entries(single)) spread(number, `change.${name}`, x);
    spread(CHANGE.APPEND, "append.index", x);
    spread(CHANGE.APPEND, "append.term", y);
    spread(CHANGE.APPEND, "append.text", z);
    spread(CHANGE.APPEND, "append.key", key, "plain");
    spread(CHANGE.PROGRESS, "progress.peer", x);
    spread(CHANGE.PROGRESS, "progress.matched", y);
    spread(CHANGE.PROGRESS, "progress.next", z);
    return { count: kind.length, event, kind, x, y, z, key };
  }

  bands(strings) {
    const kind = this.bytes("band.kind");
    const from = this.difference("band.from");
    const length = this.plain("band.length");
    const text = this.plain("band.text", Uint32Array);
    const nodeCount = this.plain("band.node-count", Uint32Array);
    const node = this.plain("band.node", Uint16Array);
    let at = 0;
    return Array.from(from, (begin, row) => {
      const nodes = Array.from(node.subarray(at, (at += nodeCount[row])));
      const end = begin + length[row];
      return { kind: BANDS[kind[row]], from: begin, to: end, text: strings[text[row]], nodes };
    });
  }

  operations(strings) {
    const client = this.plain("operation.client", Uint16Array);
    const number = this.difference("operation.number", client);
    const text = this.plain("operation.text", Uint32Array);
    const answer = this.plain("operation.answer", Uint32Array);
    const from = this.difference("operation.from");
    const to = this.plain("operation.to");
    const outcome = this.bytes("operation.outcome");
    const point = this.plain("operation.point");
    const index = this.difference("operation.index");
    const keyCount = this.plain("operation.key-count", Uint32Array);
    const key = this.plain("operation.key", Uint32Array);
    let at = 0;
    const after = (row, value) => (value === 0 ? null : from[row] + value - 1);
    return Array.from(client, (who, row) => ({
      client: who,
      number: number[row],
      text: strings[text[row]],
      answer: strings[answer[row]],
      from: from[row],
      to: after(row, to[row]),
      outcome: OUTCOMES[outcome[row]],
      point: after(row, point[row]),
      index: index[row],
      keys: Array.from(key.subarray(at, (at += keyCount[row])), (one) => strings[one]),
    }));
  }
}

/** 0, 1, 2, 3, 4 become 0, -1, 1, -2, 2. */
function unfold(folded) {
  if (folded <= 0x7fffffff) return (folded >>> 1) ^ -(folded & 1);
  return folded % 2 === 0 ? folded / 2 : -(folded + 1) / 2;
}

/** The kind of an event. */
export const kindOf = (run, event) => run.shapes[run.shape[event]].kind;

/** Whether an event is the arrival of a message. */
export const isReceive = (run, event) => run.cause[event] >= 0 && run.fate[event] === 0;

/** The fields of an event, as [name, value] pairs; those of its send if it is a receive. */
export function fieldsOf(run, event) {
  const from = isReceive(run, event) ? run.cause[event] : event;
  const shape = run.shape[from];
  return run.shapes[shape].fields.map((field, place) => {
    const value = run.fields[shape][place][run.row[from]];
    return [field.name, field.text ? run.strings[value] : value];
  });
}

/** One field of an event, or undefined. */
export function fieldOf(run, event, name) {
  const from = isReceive(run, event) ? run.cause[event] : event;
  const shape = run.shape[from];
  const place = run.shapes[shape].fields.findIndex((field) => field.name === name);
  if (place < 0) return undefined;
  const value = run.fields[shape][place][run.row[from]];
  return run.shapes[shape].fields[place].text ? run.strings[value] : value;
}
