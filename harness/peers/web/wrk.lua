-- What wrk asks, and how it says what came of it: `METHOD TARGET BODY_BYTES keep|close HOST…` after `--`.
local requests, at = {}, 0

function init(args)
  local body = tonumber(args[3]) > 0 and string.rep("x", tonumber(args[3])) or nil
  if args[4] == "close" then wrk.headers["Connection"] = "close" end
  for number = 5, #args do
    wrk.headers["Host"] = args[number]
    requests[#requests + 1] = wrk.format(args[1], args[2], wrk.headers, body)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = {}
  for _, name in ipairs({ "connect", "read", "write", "status", "timeout" }) do
    if summary.errors[name] > 0 then errors[#errors + 1] = string.format('"%s": %d', name, summary.errors[name]) end
  end
  io.write(string.format(
    '{"answered": %d, "duration_ns": %.0f, "bytes": %.0f, "p50_ns": %.0f, "p99_ns": %.0f, "max_ns": %.0f, "errors": {%s}}\n',
    summary.requests, summary.duration * 1e3, summary.bytes, latency:percentile(50) * 1e3,
    latency:percentile(99) * 1e3, latency.max * 1e3, table.concat(errors, ", ")))
end
