/**
 * The gateway's JavaScript client: tools' streams as async iterators, over HTTP or over one WebSocket for many.
 *
 *     import { Gateway } from "http://localhost:8000/client.js"
 *
 *     const gateway = new Gateway()
 *     for await (const chunk of gateway.stream("train", { epochs: 5 })) console.log(chunk)
 *
 * An ES module without dependencies, for browsers and Node. What it offers stands in client/, its types in client.d.ts.
 */

export { ConnectionError, GapError, GatewayError } from "./client/errors.js"
export { EventStreamParser } from "./client/eventstream.js"
export { Gateway } from "./client/gateway.js"
export { Run } from "./client/run.js"
export { SharedSocket } from "./client/shared.js"
export { Socket } from "./client/socket.js"
