// What a caller writes, as far as the compiler has to accept or to refuse it; never executed.
import { ConnectionError, EventStreamParser, GapError, Gateway, GatewayError, Run, SharedSocket, Socket } from "../../gateway/endpoints/static/client"

const gateway = new Gateway("http://localhost:8000", { token: async () => "secret", headers: { "X-Team": "a" } })

export async function train(): Promise<number> {
  const run: Run<{ loss: number }> = gateway.stream<{ loss: number }>("train", { epochs: 5 }, { timeoutMs: 5000, onDisconnect: "continue" })
  for await (const chunk of run) if (chunk.loss < 0.1) break
  for await (const event of gateway.runs.attach("r_1", { from: 7 }).events()) if (event.type === "chunk") return event.number
  const { result } = await gateway.call<number>("add", { a: 1, b: 2 })
  return result
}

export function sockets(): [Socket, Socket | SharedSocket] {
  return [gateway.socket({ credit: 64 }), gateway.sharedSocket()]
}

export function slug(error: unknown): string {
  if (error instanceof GatewayError) return error.slug
  if (error instanceof ConnectionError) return error.lastEventId ?? ""
  if (error instanceof GapError) return String(error.to)
  return String(new EventStreamParser().retryMs)
}

// @ts-expect-error there is no such option
gateway.stream("train", {}, { timeout: 5 })
// @ts-expect-error a gap is thrown or skipped
gateway.runs.attach("r_1", { gaps: "ignore" })
