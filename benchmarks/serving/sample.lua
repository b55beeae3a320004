-- For wrk: POST the body of BENCH_BODY with BENCH_N images and a new seed in every request. A response without a PNG
-- file is an error.
local n = tonumber(os.getenv("BENCH_N"))
local body = os.getenv("BENCH_BODY")
local seed = 0
right = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

request = function()
  seed = seed + 1
  return wrk.format(nil, nil, nil, string.format(body, n, seed))
end

local threads = {}
setup = function(thread) table.insert(threads, thread) end
response = function(status, headers, body)
  -- Triton puts JSON in front of the file.
  if status == 200 and body:sub(1, 512):find("\137PNG", 1, true) then right = right + 1 end
end

done = function(summary, latency)
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  local right = 0
  for _, thread in ipairs(threads) do right = right + thread:get("right") end
  io.write(string.format(
    'RESULT {"right": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
    right, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors + summary.requests - right))
end
