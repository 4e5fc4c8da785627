// The arrows of a frame: where each was drawn, for the pointer. Numbers in one array, made once.

const NUMBERS = 5;

export class Arrows {
  constructor() {
    this.numbers = new Float64Array(NUMBERS * 2048);
    this.count = 0;
  }

  /** A line from one place to another, and the event that it stands for. */
  push(x1, y1, x2, y2, event) {
    let at = this.count * NUMBERS;
    if (at === this.numbers.length) {
      const more = new Float64Array(this.numbers.length * 2);
      more.set(this.numbers);
      this.numbers = more;
    }
    const { numbers } = this;
    numbers[at++] = x1;
    numbers[at++] = y1;
    numbers[at++] = x2;
    numbers[at++] = y2;
    numbers[at] = event;
    this.count += 1;
  }

  /** Calls `visit(x1, y1, x2, y2, event)` for each from the `begin`th on. */
  from(begin, visit) {
    for (let one = begin; one < this.count; one++) {
      const at = one * NUMBERS;
      const { numbers } = this;
      visit(numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3], numbers[at + 4]);
    }
  }

  /** The event whose arrow is nearest to a place, if one is nearer than `reach`; else -1. */
  nearest(x, y, reach) {
    let [best, least] = [-1, reach];
    this.from(0, (x1, y1, x2, y2, event) => {
      const distance = toSegment(x, y, x1, y1, x2, y2);
      if (distance < least) [best, least] = [event, distance];
    });
    return best;
  }

  /** Where the arrow of an event ends, as [x, y]; null if it was not drawn. */
  endOf(event) {
    let end = null;
    this.from(0, (x1, y1, x2, y2, one) => {
      if (one === event) end = [x2, y2];
    });
    return end;
  }
}

function toSegment(x, y, x1, y1, x2, y2) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const length = dx * dx + dy * dy || 1;
  const share = Math.max(0, Math.min(1, ((x - x1) * dx + (y - y1) * dy) / length));
  return Math.hypot(x - x1 - share * dx, y - y1 - share * dy);
}

export function arrowHead(context, x1, y1, x2, y2) {
  const length = Math.hypot(x2 - x1, y2 - y1) || 1;
  const [dx, dy] = [(x2 - x1) / length, (y2 - y1) / length];
  const [x, y] = [x2 - dx * 3, y2 - dy * 3];
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x - dx * 7 - dy * 3, y - dy * 7 + dx * 3);
  context.lineTo(x - dx * 7 + dy * 3, y - dy * 7 - dx * 3);
  context.fill();
}
