"""What to change in which proxy, for each thing that can be wrong on a path.

The proxy is guessed by what it writes into the response's headers; one that writes nothing is UNKNOWN, whose advice names them all.
"""

from __future__ import annotations

from collections.abc import Mapping

UNKNOWN = "unknown"

# What gives a proxy away: a header, and a part of its value.
_MARKS: tuple[tuple[str, str, str], ...] = (
    ("cf-ray", "", "cloudflare"),
    ("server", "cloudflare", "cloudflare"),
    ("x-amz-cf-id", "", "cloudfront"),
    ("server", "awselb", "alb"),
    ("x-amzn-trace-id", "", "alb"),
    ("server", "nginx", "nginx"),
    ("server", "openresty", "nginx"),
    ("server", "caddy", "caddy"),
    ("via", "caddy", "caddy"),
    ("server", "envoy", "envoy"),
    ("x-envoy-upstream-service-time", "", "envoy"),
    ("server", "nghttpx", "nghttpx"),
    ("via", "nghttpx", "nghttpx"),
    ("via", "varnish", "varnish"),
    ("via", "haproxy", "haproxy"),
)

# What each proxy needs, by what is wrong.
_CURES: Mapping[str, Mapping[str, str]] = {
    "buffered": {
        "nginx": "`proxy_buffering off;` in the location, and don't list X-Accel-Buffering in `proxy_ignore_headers`",
        "caddy": "`flush_interval -1` in reverse_proxy",
        "envoy": "remove the buffer filter (envoy.filters.http.buffer) from this route",
        "cloudflare": "switch off what rewrites bodies on this path (Workers that read them, Rocket Loader, email obfuscation); "
        "cloudflared flushes only `text/event-stream`",
        "cloudfront": "use a behaviour without compression and without Lambda@Edge that reads the body",
        "haproxy": "remove `option http-buffer-request` and any filter that needs the whole response",
        "varnish": "`set beresp.do_stream = true;`, or return (pipe) for event streams",
        UNKNOWN: "switch response buffering off here (nginx: `proxy_buffering off`; Caddy: `flush_interval -1`; Envoy: no buffer filter)",
    },
    "compressed": {
        "nginx": "take text/event-stream and application/x-ndjson out of `gzip_types` (or `gzip off;` in the location)",
        "caddy": "exclude the path from `encode`, or match it by content type",
        "envoy": "take text/event-stream out of the compressor filter's content types",
        "cloudflare": "it honours `Cache-Control: no-transform`, which the gateway sends: see that nothing removes it",
        UNKNOWN: "exclude text/event-stream and application/x-ndjson from compression on this path",
    },
    "idle": {
        "nginx": "`proxy_read_timeout 1h;` (60 s by default)",
        "caddy": "raise `read_timeout` of the reverse_proxy's transport",
        "envoy": "raise the route's `idle_timeout` and `timeout: 0s`, and the listener's `stream_idle_timeout` (5 min by default)",
        "alb": "raise the load balancer's idle timeout (60 s by default, `idle_timeout.timeout_seconds`)",
        "cloudflare": "its 100 s can't be changed on most plans: keep heartbeats well under it",
        "haproxy": "raise `timeout server` and `timeout client`, or set `timeout tunnel`",
        UNKNOWN: "raise the read or idle time-out of the proxy (nginx: `proxy_read_timeout`; ALB: idle timeout; HAProxy: `timeout server`)",
    },
    "websocket": {
        "nginx": "`proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;`, with "
        "a map from $http_upgrade to the latter",
        "envoy": "`upgrade_configs: [{upgrade_type: websocket}]` in the HTTP connection manager",
        "cloudflare": "switch WebSockets on under Network",
        UNKNOWN: "let the proxy pass `Upgrade: websocket` on, over HTTP/1.1",
    },
    "disconnect": {
        "nginx": "remove `proxy_ignore_client_abort on;`",
        UNKNOWN: "have the proxy close its connection to the gateway when its client leaves: else tools go on for nobody",
    },
    "body": {
        "nginx": "`client_max_body_size 16m;` (1 MB by default)",
        "envoy": "raise `max_request_bytes` of the buffer filter",
        "caddy": "raise `max_size` of `request_body`",
        UNKNOWN: "raise the proxy's limit on bodies (nginx: `client_max_body_size`, 1 MB by default)",
    },
    "http2": {
        "nginx": "`listen 443 ssl; http2 on;`",
        "envoy": "`alpn_protocols: [h2, http/1.1]` in the listener's TLS context",
        "haproxy": "`alpn h2,http/1.1` on the bind line",
        UNKNOWN: "serve browsers over TLS with HTTP/2 (Caddy does so by itself; nginx: `http2 on;`)",
    },
    "headers": {
        "nginx": "look for `proxy_hide_header`, `add_header Cache-Control` and `expires` on this path",
        UNKNOWN: "have the proxy leave Content-Type and Cache-Control of streams as they are",
    },
}


def proxy_of(headers: Mapping[str, str]) -> str:
    """Return the proxy that a response's headers (names in lower case) speak of, the nearest one; UNKNOWN where none does."""
    for name, part, proxy in _MARKS:
        if name in headers and part in headers[name].lower():
            return proxy
    return UNKNOWN


def cure(wrong: str, proxy: str) -> str:
    """Return what to change in this proxy for this."""
    cures = _CURES[wrong]
    return cures.get(proxy) or cures[UNKNOWN]
