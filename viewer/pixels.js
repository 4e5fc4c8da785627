// A layer of a canvas that is written pixel by pixel and put there in one piece.
//
// Why: what cannot be told apart (how much happened, ticks, what was lost) are tens of thousands of
// small boxes. As calls of a canvas they take longer than all else; as numbers in an array they do
// not count. What is written later covers what was written before.

export class Pixels {
  constructor() {
    this.canvas = new OffscreenCanvas(1, 1);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.#make(1, 1);
  }

  #make(width, height) {
    this.width = this.canvas.width = width;
    this.height = this.canvas.height = height;
    this.image = new ImageData(width, height);
    this.words = new Uint32Array(this.image.data.buffer);
  }

  /** An empty layer of this size in pixels; `ratio` of them are one unit of `box`. */
  begin(width, height, ratio, top) {
    if (this.width !== width || this.height !== height) this.#make(width, height);
    else if (this.isUsed) this.words.fill(0, this.first * width, this.last * width);
    [this.ratio, this.top] = [ratio, top];
    this.isUsed = false;
    [this.first, this.last] = [height, 0];
  }

  /** A box of one colour, as `word` gives it; no less than one pixel wide and high. */
  box(x, y, width, height, word) {
    const { ratio } = this;
    const left = Math.max(Math.round(x * ratio), 0);
    const right = Math.min(Math.max(Math.round((x + width) * ratio), left + 1), this.width);
    const top = Math.max(Math.round((y - this.top) * ratio), 0);
    const bottom = Math.min(Math.max(Math.round((y - this.top + height) * ratio), top + 1), this.height);
    if (left >= right || top >= bottom) return;
    this.isUsed = true;
    if (top < this.first) this.first = top;
    if (bottom > this.last) this.last = bottom;
    const { words } = this;
    for (let row = top; row < bottom; row++) {
      const begin = row * this.width;
      if (right - left < 8) for (let at = begin + left; at < begin + right; at++) words[at] = word;
      else words.fill(word, begin + left, begin + right);
    }
  }

  /** Puts it on a canvas of the same size. */
  put(context) {
    if (!this.isUsed) return;
    const { first, last, width } = this;
    this.context.putImageData(this.image, 0, 0, 0, first, width, last - first);
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.canvas, 0, first, width, last - first, 0, first, width, last - first);
    context.restore();
  }
}

/** A colour of the style sheet ("#rrggbb") and how opaque it is, as a pixel. */
export function word(color, alpha) {
  const number = Number.parseInt(color.slice(1, 7), 16);
  const [red, green, blue] = [number >>> 16, (number >>> 8) & 255, number & 255];
  return ((Math.round(alpha * 255) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
