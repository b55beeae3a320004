-- For wrk: POST /v1/sample with BENCH_N images and a new seed in every request. Any response but a PNG is an error.
local n = os.getenv("BENCH_N") or "1"
local seed, wrong = 0, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

request = function()
  seed = seed + 1
  return wrk.format(nil, nil, nil, '{"n": ' .. n .. ', "seed": ' .. seed .. '}')
end

local threads = {}
setup = function(thread) table.insert(threads, thread); thread:set("wrong", 0) end
response = function(status, headers, body)
  if status ~= 200 or body:sub(2, 4) ~= "PNG" then wrong = wrong + 1 end
end

done = function(summary, latency)
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.status + summary.errors.timeout
  for _, thread in ipairs(threads) do errors = errors + thread:get("wrong") end
  io.write(string.format('RESULT {"requests_per_s": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors))
end
