-- One binary CloudEvent a request, each with an id of its own.
local n = 0
local body = '{"endpoint":"/accounts","method":"GET","status_code":200,"response_time_ms":45}'
local headers = {
    ["content-type"] = "application/json",
    ["ce-specversion"] = "1.0",
    ["ce-type"] = "api.call",
    ["ce-source"] = "open-banking-api",
    ["ce-subject"] = "tpp-12345",
    ["ce-time"] = "2024-01-15T10:30:00Z",
}
request = function()
    n = n + 1
    headers["ce-id"] = "bench-" .. n
    return wrk.format("POST", nil, headers, body)
end
