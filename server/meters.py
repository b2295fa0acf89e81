"""The counters that /metrics shows."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("grow_http_requests", "Requests answered", ["method", "route", "status"])
LATENCY = Histogram("grow_http_request_seconds", "Time until the response was complete", ["route"])
OPEN_STREAMS = Gauge("grow_sse_connections", "Open event streams", ["stream"])
TICKETS = Gauge("grow_tickets", "Tickets in the line, by lane and status", ["lane", "status"])
CHECKPOINTS = Gauge("grow_checkpoints", "Checkpoints, by state", ["state"])
WORKERS = Gauge("grow_workers_alive", "Workers heard from in the last half minute")
BROKER = Gauge("grow_broker_alive", "1 while the message broker answers")
