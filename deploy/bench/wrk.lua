-- Posts events that are all different, about 270 bytes each, and prints one line
-- of JSON at the end. RUN makes the events of one run different from another's.
local run = os.getenv("RUN")
local n = 0

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function request()
  n = n + 1
  return wrk.format(nil, nil, nil, string.format(
    '{"source":"git:snowplow/stream-collector","event_type":"commit_authored","actor_id":"%s-%09d","occurred_at":"2012-03-01T13:09:25+00:00","payload":{"commit":"74d22d288960","parents":0,"committed_at":"2012-03-01T13:09:25+00:00","subject_chars":18,"subject_words":2}}',
    run, n))
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\n{"requests":%d,"micros":%d,"failed":%d,"p50":%d,"p95":%d,"p99":%d,"max":%d}\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99), latency.max))
end
