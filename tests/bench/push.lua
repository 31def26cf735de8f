-- One binary CloudEvent a request, as a KafkaSource delivers it, and each another event. Its
-- time is now, which is what the registry is for.
local run = os.time() .. "-" .. math.floor(os.clock() * 1e9) .. "-" .. tostring({}):sub(8)
local now = os.date("!%Y-%m-%dT%H:%M:%SZ")
local body = '{"endpoint":"/accounts","method":"GET","status_code":200,"response_time_ms":45}'
local before, after, n

function init()
    local request = wrk.format("POST", nil, {
        ["content-type"] = "application/json",
        ["ce-specversion"] = "1.0",
        ["ce-type"] = "api.call",
        ["ce-source"] = "open-banking-api",
        ["ce-subject"] = "tpp-12345",
        ["ce-time"] = now,
        ["ce-ingestedat"] = now,
        ["ce-id"] = "ID",
    }, body)
    local first, last = request:find("ce-id: ID", 1, true)
    before, after, n = request:sub(1, last - 2) .. run .. "-", request:sub(last + 1), 0
end

function request()
    n = n + 1
    return before .. n .. after
end
