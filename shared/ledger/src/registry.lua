#!lua name=openmeter_registry_VERSION
-- The identity registry's atomic steps. Internal: only the Rust beside this file
-- calls them. VERSION is replaced by a hash of this file, so that during a rollout
-- each version of a function calls its own.
--
-- Keys of one call share a hash tag (a bucket), so that each call is one step on
-- one node of a cluster, and a node that lost its data loses its epochs with it.
--   PREFIX:{BB}:epoch      run id of the server ':' token; present = nothing is missing
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

local function is_current(mark)
    return mark and string.sub(mark, 1, #server_run_id()) == server_run_id()
end

local function ingested_at(seen)
    return (struct.unpack('<i8', seen, 9))
end

-- Returns the winner that `claim` repeats, or '' when it is an event of its own.
-- A resend after the window is one: then the younger winner has the key and the
-- older one moves on to the next, so that each still finds its own repeats, in
-- whatever order they come.
local function settle(key, claim, window, ttl)
    local winner = redis.call('SET', key, claim, 'NX', 'GET', 'PX', ttl)
    if not winner then return '' end
    local later = ingested_at(claim) - ingested_at(winner)
    if math.abs(later) < window then return winner end
    local next_key = key .. ':'
    if later < 0 then return settle(next_key, claim, window, ttl) end
    redis.call('SET', key, claim, 'PX', ttl)
    settle(next_key, winner, window, ttl)
    return ''
end

-- KEYS: epoch, identity ...
-- ARGV: 'trust' or 'adopt', window in microseconds, time to live in milliseconds, claim ...
-- Reply: {epoch or '', {winner or '' per identity}}; with 'trust' and no current
-- epoch nothing is registered and the second list is empty. '' = the claim won.
local function register(keys, args)
    if #args ~= #keys + 2 then
        return redis.error_reply('om_register: one claim for each identity, got ' .. #args .. ' arguments')
    end
    local epoch = redis.call('GET', keys[1])
    if not is_current(epoch) then epoch = '' end
    local winners = {}
    if epoch == '' and args[1] == 'trust' then
        return { epoch, winners }
    end
    local window, ttl = tonumber(args[2]), args[3]
    for i = 2, #keys do
        winners[i - 1] = settle(keys[i], args[i + 2], window, ttl)
    end
    return { epoch, winners }
end

-- KEYS: refill. ARGV: token. Marks that a refill began before which nothing is trusted.
local function begin_refill(keys, args)
    redis.call('SET', keys[1], server_run_id() .. ':' .. args[1])
    return 'OK'
end

-- KEYS: refill, epoch. ARGV: token. Opens the bucket, unless data was lost since
-- the refill with this token began. Reply: 1 if it is open now, else 0.
local function finish_refill(keys, args)
    local mark = server_run_id() .. ':' .. args[1]
    if redis.call('GET', keys[1]) ~= mark then return 0 end
    redis.call('SET', keys[2], mark)
    redis.call('DEL', keys[1])
    return 1
end

redis.register_function('om_register_VERSION', register)
redis.register_function('om_begin_refill_VERSION', begin_refill)
redis.register_function('om_finish_refill_VERSION', finish_refill)
