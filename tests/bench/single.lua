-- One binary CloudEvent a request. A thousand requests are written beforehand and sent in
-- turn: writing each one anew would make wrk, and not the server, the slowest.
local body = '{"endpoint":"/accounts","method":"GET","status_code":200,"response_time_ms":45}'
local requests, n = {}, 0

function init()
    for i = 1, 1000 do
        requests[i] = wrk.format("POST", nil, {
            ["content-type"] = "application/json",
            ["ce-specversion"] = "1.0",
            ["ce-type"] = "api.call",
            ["ce-source"] = "open-banking-api",
            ["ce-subject"] = "tpp-12345",
            ["ce-time"] = "2024-01-15T10:30:00Z",
            ["ce-id"] = "bench-" .. i,
        }, body)
    end
end

function request()
    n = n % 1000 + 1
    return requests[n]
end
