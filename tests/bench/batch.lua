-- A hundred events a request, in CloudEvents' batch format.
local events = {}
for i = 1, 100 do
    events[i] = '{"specversion":"1.0","id":"bench-' .. i .. '","source":"open-banking-api","type":"api.call",'
        .. '"subject":"tpp-' .. (i % 50) .. '","time":"2024-01-15T10:30:00Z",'
        .. '"data":{"endpoint":"/accounts","method":"GET","status_code":200,"response_time_ms":45}}'
end
wrk.method = "POST"
wrk.headers["content-type"] = "application/cloudevents-batch+json"
wrk.body = "[" .. table.concat(events, ",") .. "]"
