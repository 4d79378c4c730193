/** Types of /client.js, the gateway's JavaScript client. */

/** Anything that JSON has a word for; bytes are `{ "$bytes": "<base64>" }`. */
export type Json = any

export interface GatewayOptions {
  /** Sent with every request. */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>)
  /** The caller's secret: `Authorization: Bearer …`, and in a WebSocket's `connection_init`. A function is asked each time. */
  token?: string | null | (() => string | null | Promise<string | null>)
  fetch?: typeof fetch
  /** For cookies of another origin: "include". */
  credentials?: RequestCredentials
}

/** What a run is told when it is started. */
export interface StartOptions {
  session?: string
  pool?: string
  timeoutMs?: number
  queueTimeoutMs?: number
  firstChunkTimeoutMs?: number
  idleTimeoutMs?: number
  affinity?: "hint" | "strict_queue" | "strict_fail_fast"
  /** What it means when the last subscriber's connection goes: "cancel", "grace:30s", "continue". By default "grace:15s". */
  onDisconnect?: string
  /** What happens to a reader that is too slow: the tool waits, it is moved on (a gap), or it is cut and comes back. */
  overflow?: "block" | "latest" | "disconnect"
  meta?: Record<string, string>
  /** The same key with the same request is the same run; one is made up where none is given. */
  idempotencyKey?: string
  signal?: AbortSignal
}

export interface ReadOptions {
  signal?: AbortSignal
  /** How many failures to connect in a row are borne; 10 by default, Infinity for all. */
  attempts?: number
  /** What a gap does to a loop over chunks: "throw" a GapError (the default), or "skip" it. */
  gaps?: "throw" | "skip"
  /** What leaving the loop does: "cancel" stops the run, "leave" leaves that to its onDisconnect. "cancel" by default, where the run was started by this client and no onDisconnect was given. */
  leaving?: "cancel" | "leave"
}

export interface StreamOptions extends StartOptions, ReadOptions {
  /** Whether a start that was refused for want of room is asked for again, after its Retry-After. Over HTTP; by default "throw". */
  whenRefused?: "throw" | "retry"
}

export interface AttachOptions extends ReadOptions {
  /** Go on after this event. */
  lastEventId?: string
  /** Begin at the "start" (the default), "live", or after the chunk of this number. */
  from?: "start" | "live" | number
  /** An observer neither slows the tool nor keeps it alive. */
  role?: "subscriber" | "observer"
  overflow?: "block" | "latest" | "disconnect"
}

export interface SocketOptions {
  /** The WebSocket class, where there is no global one. */
  WebSocket?: typeof WebSocket
  /** How many chunks of each run may be on their way, or wait for their consumer; 256 by default. */
  credit?: number
  attempts?: number
}

/** On one run: chunks of it may wait here so much. */
export interface SocketRunOptions {
  credit?: number
}

export interface Problem {
  type: string
  title: string
  status: number
  detail: string
  instance?: string
  code: string
  retryable: boolean
  errors?: { field: string; detail: string }[]
  error_type?: string
  [member: string]: Json
}

export interface Start {
  run: string
  tool: string
  on_disconnect: string
  timeout_ms: number
  heartbeat_ms: number
  links: { events: string; cancel: string }
  resumed?: boolean
  from?: number
  [member: string]: Json
}

export interface Gap {
  from: number
  to: number
  reason: string
}

export interface End {
  /** `auth_expired` is this reader's alone: with a new credential the run is read on behind `lastEventId`. */
  status: "ok" | "error" | "cancelled" | "deadline" | "expired" | "shutdown" | "auth_expired"
  chunks: number
  error?: Problem
  metadata?: Record<string, string>
  timing?: { queue_ms: number | null; first_chunk_ms: number | null; total_ms: number }
}

export type RunEvent<Chunk = Json> =
  | { type: "start"; data: Start }
  | { type: "status"; data: { state: string; position?: number; depth?: number; [member: string]: Json } }
  | { type: "chunk"; data: Chunk; number: number; id: string }
  | { type: "gap"; data: Gap }
  | { type: "end"; data: End }
  /** The connection was lost; the next attempt is after `delayMs`. */
  | { type: "cut"; cause: Error; attempt: number; delayMs: number }

export interface RunState {
  run: string
  tool: string
  state: string
  created_at: string
  session: string | null
  pool: string | null
  worker: string | null
  chunks: number
  on_disconnect: string
  links: Record<string, string>
  queue?: { position: number; depth: number }
  end?: End
}

export interface Tool {
  name: string
  description: string
  supports_streaming: boolean | null
  parameters: Record<string, Json> | null
  pool: string
  links: Record<string, string>
}

export interface Pool {
  name: string
  kind: string
  queued: number
  in_flight: number
  workers: { id: string; state: string; in_flight: number; concurrency: number; restarts: number; address: string | null }[]
}

/** One run, read by one loop: its chunks, its events, or the events that arrive together. */
export class Run<Chunk = Json> implements AsyncIterable<Chunk> {
  private constructor()
  readonly id: string | null
  readonly lastEventId: string | null
  readonly start: Start | null
  readonly end: End | null
  [Symbol.asyncIterator](): AsyncGenerator<Chunk, void, void>
  events(): AsyncGenerator<RunEvent<Chunk>, void, void>
  batches(): AsyncGenerator<RunEvent<Chunk>[], void, void>
  /** Stop the run, whoever reads it. */
  cancel(): Promise<void>
  /** Leave the run from outside of its loop, which ends without an error. */
  leave(): void
}

export class Gateway {
  /** By default the gateway that served this module. */
  constructor(baseUrl?: string | URL, options?: GatewayOptions)
  readonly runs: {
    list(filter?: { state?: string; tool?: string; limit?: number; cursor?: string | null }): Promise<{ runs: RunState[]; cursor: string | null; next: string | null }>
    get(id: string): Promise<RunState>
    cancel(id: string): Promise<RunState>
    attach<Chunk = Json>(id: string, options?: AttachOptions): Run<Chunk>
  }
  /** Where it is, with a slash at the end. */
  readonly baseUrl: string
  /** Trade a key or a token for a cookie that no script can read, and that goes with every request of this page from then on. */
  signIn(token: string): Promise<void>
  signOut(): Promise<void>
  tools(): Promise<Tool[]>
  tool(name: string): Promise<Tool>
  pools(): Promise<Pool[]>
  stream<Chunk = Json>(tool: string, args?: object, options?: StreamOptions): Run<Chunk>
  call<Result = Json>(tool: string, args?: object, options?: StartOptions): Promise<{ result: Result; metadata: Record<string, string> }>
  /** Start a run in the background; it goes on whoever reads it. */
  start(tool: string, args?: object, options?: StartOptions): Promise<RunState>
  socket(options?: SocketOptions): Socket
  /** One for all tabs of this origin, where the browser can do that. */
  sharedSocket(options?: SocketOptions): Socket | SharedSocket
}

/** Many runs on one WebSocket, each with credit. Made by Gateway.socket. */
export class Socket {
  private constructor()
  stream<Chunk = Json>(tool: string, args?: object, options?: StreamOptions & SocketRunOptions): Run<Chunk>
  attach<Chunk = Json>(id: string, options?: AttachOptions & SocketRunOptions): Run<Chunk>
  close(): void
}

/** The same, held by a shared worker. Made by Gateway.sharedSocket. */
export class SharedSocket {
  private constructor()
  static isPossible(): boolean
  stream<Chunk = Json>(tool: string, args?: object, options?: StreamOptions & SocketRunOptions): Run<Chunk>
  attach<Chunk = Json>(id: string, options?: AttachOptions & SocketRunOptions): Run<Chunk>
  close(): void
}

/** A problem document (RFC 9457), thrown. */
export class GatewayError extends Error {
  constructor(problem: Partial<Problem>, more?: { retryAfterMs?: number | null; end?: Omit<End, "error"> | null })
  readonly problem: Partial<Problem>
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly code: string
  readonly retryable: boolean
  readonly errors: { field: string; detail: string }[]
  readonly errorType: string | null
  readonly retryAfterMs: number | null
  /** The run's end event, where that carried the problem. */
  readonly end: Omit<End, "error"> | null
  /** The last part of `type`. */
  get slug(): string
}

/** The gateway could not be reached for as often as was allowed. */
export class ConnectionError extends Error {
  constructor(message: string, more?: { cause?: unknown; lastEventId?: string | null })
  readonly lastEventId: string | null
}

/** Chunks that can't be delivered any more. */
export class GapError extends Error {
  constructor(gap: Gap)
  readonly from: number
  readonly to: number
  readonly reason: string
}

/** An event stream's bytes as its events (WHATWG HTML §9.2.6). */
export class EventStreamParser {
  readonly retryMs: number | null
  feed(bytes: Uint8Array): { event: string; data: string; id: string }[]
}
