/**
 * A tool's JSON Schema as the fields of a form, and what was typed as the arguments of a call.
 *
 * What a schema says beyond this is the gateway's to check: its answer names the field.
 */

/**
 * @typedef {{ name: string, kind: "text" | "number" | "integer" | "boolean" | "choice" | "json", description: string,
 *   required: boolean, nullable: boolean, initial: string, choices: string[], limits: { min?: number, max?: number } }} Field
 *   `initial` is the default as it would be typed; `choices` are JSON texts.
 */

/**
 * Return the fields of a schema; null for a tool that can't be described.
 * @param {any} schema
 * @returns {Field[] | null}
 */
export function fieldsOf(schema) {
  if (schema === null || schema === undefined) return null
  const required = schema.required ?? []
  return Object.entries(schema.properties ?? {}).map(([name, given]) => fieldOf(name, given, schema.$defs ?? {}, required.includes(name)))
}

/**
 * @param {string} name
 * @param {any} given
 * @param {Record<string, any>} definitions
 * @param {boolean} required
 * @returns {Field}
 */
function fieldOf(name, given, definitions, required) {
  const { nullable, inner } = withoutNull(resolve(given, definitions), definitions)
  const choices = (inner.enum ?? (inner.const === undefined ? [] : [inner.const])).map((/** @type {any} */ value) => JSON.stringify(value))
  const kind = choices.length > 0 ? "choice" : (KINDS[inner.type] ?? "json")
  const fallback = given.default ?? inner.default
  return {
    name,
    kind,
    description: given.description ?? inner.description ?? "",
    required,
    nullable,
    choices,
    initial: fallback === undefined || fallback === null ? "" : kind === "text" ? fallback : JSON.stringify(fallback),
    limits: { min: inner.minimum, max: inner.maximum },
  }
}

/** @type {Record<string, "text" | "number" | "integer" | "boolean">} */
const KINDS = { string: "text", number: "number", integer: "integer", boolean: "boolean" }

/** @param {any} schema @param {Record<string, any>} definitions */
function resolve(schema, definitions) {
  const name = schema?.$ref?.replace("#/$defs/", "")
  return name === undefined ? (schema ?? {}) : { ...(definitions[name] ?? {}), ...schema }
}

/** @param {any} schema @param {Record<string, any>} definitions */
function withoutNull(schema, definitions) {
  if (Array.isArray(schema.type)) {
    const types = schema.type.filter((/** @type {string} */ type) => type !== "null")
    return { nullable: types.length < schema.type.length, inner: { ...schema, type: types.length === 1 ? types[0] : undefined } }
  }
  const either = schema.anyOf ?? schema.oneOf
  if (either === undefined) return { nullable: schema.type === "null", inner: schema }
  const others = either.filter((/** @type {any} */ one) => one.type !== "null")
  return { nullable: others.length < either.length, inner: others.length === 1 ? resolve(others[0], definitions) : {} }
}

/**
 * Return the arguments that were typed, and what is wrong with them by field. A field that is left empty is left out, so that
 * the tool's default applies.
 * @param {Field[]} fields
 * @param {Record<string, string>} typed
 * @returns {{ args: Record<string, any>, errors: Record<string, string> }}
 */
export function argumentsOf(fields, typed) {
  /** @type {Record<string, any>} */
  const args = {}
  /** @type {Record<string, string>} */
  const errors = {}
  for (const field of fields) {
    const text = typed[field.name] ?? field.initial
    if (text === "" && field.kind !== "text") {
      if (field.required && field.nullable) args[field.name] = null
      else if (field.required) errors[field.name] = "is required"
    } else if (text === "" && !field.required && field.initial === "") {
      // An optional text that was left alone.
    } else {
      try {
        args[field.name] = valueOf(field, text)
      } catch (error) {
        errors[field.name] = /** @type {Error} */ (error).message
      }
    }
  }
  return { args, errors }
}

/** @param {Field} field @param {string} text */
function valueOf({ kind }, text) {
  if (kind === "text") return text
  if (kind === "number" || kind === "integer") return numberOf(text, kind)
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Error(`is not JSON: ${/** @type {Error} */ (error).message}`)
  }
}

/** @param {string} text @param {string} kind */
function numberOf(text, kind) {
  const value = Number(text)
  if (!Number.isFinite(value) || text.trim() === "") throw new Error("is not a number")
  if (kind === "integer" && !Number.isInteger(value)) throw new Error("is not a whole number")
  if (kind === "integer" && !Number.isSafeInteger(value)) throw new Error("is larger than a browser can say exactly")
  return value
}

/**
 * Return what a problem says of each field, by the field's name: `/epochs` and `/epochs/0` are of `epochs`.
 * @param {{ field: string, detail: string }[]} errors
 */
export function errorsByField(errors) {
  /** @type {Record<string, string>} */
  const found = {}
  for (const { field, detail } of errors) {
    const [name, ...inner] = field.replace(/^\//, "").split("/").map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    found[name] = [...(name in found ? [found[name]] : []), inner.length > 0 ? `${inner.join("/")}: ${detail}` : detail].join("; ")
  }
  return found
}
