/**
 * The numbers in a run's chunks, as a plot needs them: bounded, however many chunks there are.
 *
 * Chunks are gathered in buckets of `stride` chunks, of which the lowest and the highest value are kept, so that no spike is lost.
 * When there are too many buckets, pairs become one, and the stride doubles.
 */

const FIELDS_LIMIT = 20

/** @typedef {{ lows: (number | null)[], highs: (number | null)[], last: number, low: number, high: number }} Field */

export class Series {
  stride = 1
  #inBucket = 0
  /** The number of the first chunk in each bucket. @type {number[]} */
  #firsts = []
  /** @type {Map<string, Field>} */
  fields = new Map()

  /** @param {number} limit How many buckets there are at most; an even number. */
  constructor(limit = 2000) {
    this.limit = limit
  }

  /**
   * Add a chunk.
   * @param {number} number
   * @param {any} chunk
   */
  add(number, chunk) {
    if (this.#firsts.length === 0 || this.#inBucket === this.stride) {
      if (this.#firsts.length === this.limit) this.#halve()
      this.#open(number)
    }
    this.#inBucket += 1
    const at = this.#firsts.length - 1
    for (const [name, value] of numbersOf(chunk)) {
      const field = this.fields.get(name) ?? this.#newField(name, value)
      if (field === null) continue
      field.last = value
      field.low = Math.min(field.low, value)
      field.high = Math.max(field.high, value)
      field.lows[at] = Math.min(field.lows[at] ?? value, value)
      field.highs[at] = Math.max(field.highs[at] ?? value, value)
    }
  }

  /**
   * Return chunk numbers and, for each field, the values there: a bucket of more than one chunk is two points.
   * @param {string[]} names
   * @returns {(number | null)[][]}
   */
  columns(names) {
    const fields = names.map((name) => this.fields.get(name)).filter((field) => field !== undefined)
    if (this.stride === 1) return [this.#firsts.slice(), ...fields.map(({ lows }) => lows.slice())]
    const xs = this.#firsts.flatMap((first) => [first, first + this.stride / 2])
    return [xs, ...fields.map(({ lows, highs }) => lows.flatMap((low, at) => [low, highs[at]]))]
  }

  /** @param {number} number */
  #open(number) {
    this.#firsts.push(number)
    this.#inBucket = 0
    for (const { lows, highs } of this.fields.values()) {
      lows.push(null)
      highs.push(null)
    }
  }

  /** @param {string} name @param {number} value */
  #newField(name, value) {
    if (this.fields.size >= FIELDS_LIMIT) return null
    const empty = this.#firsts.map(() => null)
    const field = { lows: empty, highs: [...empty], last: value, low: value, high: value }
    this.fields.set(name, field)
    return field
  }

  #halve() {
    this.#firsts = this.#firsts.filter((_, at) => at % 2 === 0)
    for (const field of this.fields.values()) {
      field.lows = pairs(field.lows, Math.min)
      field.highs = pairs(field.highs, Math.max)
    }
    this.stride *= 2
  }
}

/**
 * @param {(number | null)[]} values
 * @param {(...values: number[]) => number} choose
 */
function pairs(values, choose) {
  const halved = []
  for (let at = 0; at < values.length; at += 2) {
    const pair = /** @type {number[]} */ (values.slice(at, at + 2).filter((value) => value !== null))
    halved.push(pair.length === 0 ? null : choose(...pair))
  }
  return halved
}

/**
 * Return a chunk's numbers by name: its own, those of the objects in it as `outer.inner`; a bare number is `value`.
 * @param {any} chunk
 * @returns {[string, number][]}
 */
export function numbersOf(chunk) {
  if (Number.isFinite(chunk)) return [["value", chunk]]
  if (!isObject(chunk)) return []
  /** @type {[string, number][]} */
  const found = []
  for (const [name, value] of Object.entries(chunk)) {
    if (Number.isFinite(value)) found.push([name, value])
    else if (isObject(value)) {
      for (const [inner, number] of Object.entries(value)) if (Number.isFinite(number)) found.push([`${name}.${inner}`, number])
    }
  }
  return found
}

/** @param {any} value */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value)
