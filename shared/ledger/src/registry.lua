#!lua name=openmeter_registry_VERSION
-- The identity registry's atomic steps. Internal: only the Rust beside this file
-- calls them. VERSION is replaced by a hash of this file, so that during a rollout
-- each version of a function calls its own.
--
-- Keys of one call share a hash tag (a bucket), so that each call is one step on
-- one node of a cluster, and a node that lost its data loses its epochs with it.
--   PREFIX:{BB}:epoch      run id of the server ':' kept ':' token; present = nothing is missing
--   PREFIX:{BB}:refill     the same form, while a refill is under way
--   PREFIX:{BB}:IDENTITY   the winner: time, ingested_at, content; 8 bytes each, little endian

local run_id

-- A restarted or promoted server has another run id, and may have forgotten what
-- an epoch in its snapshot promises. INFO is slow, so it is asked once a process:
-- this variable lives as long as the server does.
local function server_run_id()
    if not run_id then
        run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
    end
    return run_id
end

-- A mark promises that nothing is missing that this server was told and that is kept
-- for this long: a server that is asked to keep identities longer has let some go.
local function mark_of(kept)
    return server_run_id() .. ':' .. kept .. ':'
end

local function is_current(mark, kept)
    local wanted = mark_of(kept)
    return mark and string.sub(mark, 1, #wanted) == wanted
end

local function ingested_at(seen)
    return (struct.unpack('<i8', seen, 9))
end

local function is_verbatim(one, other)
    return string.sub(one, 1, 8) == string.sub(other, 1, 8) and string.sub(one, 17) == string.sub(other, 17)
end

-- Events of their own under one identity, a window apart, that are remembered at a time.
local MOST = 8

-- Returns the winner that is what `claim` is: sent again as it was, it is the same event,
-- whenever it is sent.
local function verbatim(key, claim)
    for _ = 1, MOST do
        local winner = redis.call('GET', key)
        if not winner or is_verbatim(winner, claim) then return winner end
        key = key .. ':'
    end
end

-- Puts an event of its own in its place: the youngest has the key, each older one the
-- next, so that each finds its own repeats, in whatever order they come.
local function insert(key, claim, winner, kept)
    for _ = 1, MOST do
        if not winner then return end
        if ingested_at(claim) > ingested_at(winner) then
            redis.call('SET', key, claim, 'PX', kept)
            claim = winner
        end
        key = key .. ':'
        winner = redis.call('SET', key, claim, 'NX', 'GET', 'PX', kept)
    end
end

-- Returns the winner that `claim` repeats, or '' when it is an event of its own: the first
-- of its identity, or a resend after the window.
local function settle(key, claim, window, kept)
    local first = redis.call('SET', key, claim, 'NX', 'GET', 'PX', kept)
    if not first then return '' end
    local same = verbatim(key, claim)
    if same then return same end
    local at, winner = key, first
    for _ = 1, MOST do
        if math.abs(ingested_at(claim) - ingested_at(winner)) < window then return winner end
        at = at .. ':'
        winner = redis.call('GET', at)
        if not winner then break end
    end
    insert(key, claim, first, kept)
    return ''
end

-- KEYS: epoch, identity ...
-- ARGV: 'trust' or 'adopt', window in microseconds, milliseconds that it is kept, claim ...
-- A claim for which the store knows a winner is that winner, followed by the claim itself: what
-- it is sent again of may be registered, and not in the store yet.
-- Reply: {epoch or '', {winner or '' per identity}}; with 'trust' and no current
-- epoch nothing is registered and the second list is empty. '' = the claim won.
local function register(keys, args)
    if #args ~= #keys + 2 then
        return redis.error_reply('om_register: one claim for each identity, got ' .. #args .. ' arguments')
    end
    local window, kept = tonumber(args[2]), args[3]
    local epoch = redis.call('GET', keys[1])
    if epoch and not is_current(epoch, kept) then
        -- Gone for good: this server may pass its role on and take it back, and would
        -- then find a mark of its own that knows nothing of what came between.
        redis.call('DEL', keys[1])
        epoch = false
    end
    local winners = {}
    if not epoch and args[1] == 'trust' then
        return { '', winners }
    end
    for i = 2, #keys do
        local claim = string.sub(args[i + 2], 1, 24)
        local own = string.sub(args[i + 2], 25)
        local same = own ~= '' and verbatim(keys[i], own)
        winners[i - 1] = same or settle(keys[i], claim, window, kept)
    end
    return { epoch or '', winners }
end

-- KEYS: refill, epoch. ARGV: milliseconds that identities are kept, token. Marks that a
-- refill began, before which nothing is trusted.
local function begin_refill(keys, args)
    redis.call('DEL', keys[2])
    redis.call('SET', keys[1], mark_of(args[1]) .. args[2])
    return 'OK'
end

-- KEYS: refill, epoch. ARGV: as above. Opens the bucket, unless data was lost since the
-- refill with this token began. Reply: 1 if it is open now, else 0.
local function finish_refill(keys, args)
    local mark = mark_of(args[1]) .. args[2]
    if redis.call('GET', keys[1]) ~= mark then return 0 end
    redis.call('SET', keys[2], mark)
    redis.call('DEL', keys[1])
    return 1
end

redis.register_function('om_register_VERSION', register)
redis.register_function('om_begin_refill_VERSION', begin_refill)
redis.register_function('om_finish_refill_VERSION', finish_refill)
