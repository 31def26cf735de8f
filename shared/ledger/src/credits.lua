#!lua name=openmeter_credits
-- Credit accounts: a public contract. API gateways call om_check; quota calls the rest. A later
-- version only adds functions, and arguments and members of replies at their ends. VERSION is raised
-- with each change of this file, or a Valkey that has it would keep the old one.
--
-- Amounts are whole micro-credits (a millionth of a credit), written as decimal integers, at most
-- 2^53 - 1 either way, since Lua's numbers are doubles. A step that would pass that bound changes
-- nothing and answers an error; all errors of this library's own begin with INVALID, or CONFLICT.
-- Each call is one atomic step on one account, and may be made again: the second time changes
-- nothing. Call the primary: a replica has another run id, and so knows no account.
--
-- KEYS has the account's key,
--   PREFIX:credits:{SUBJECT}     a hash; %, { and } in the subject are %25, %7B and %7D
-- and what belongs to it has the same hash tag, so that it lives on the same node of a cluster:
--   KEY:grants                   hash: idempotency key -> amount
--   KEY:debits:DAY               hash: identity -> amount, by the day on which ingest took the event
--   KEY:holds, KEY:expiry        hash: hold -> amount, and sorted set: hold -> when it ends, in ms
-- Days are days since 1970. The account's own fields:
--   balance   credits that were granted less what was debited; holds are not taken off
--   limit     how far below zero the balance may go; absent = without end
--   held      the sum of KEY:holds, those that ended since the last change among them
--   d:DAY     what was debited for events of that day, or what it was sealed with
--   s:DAY     there if the day is sealed: when the total that it was sealed with was read
--   sealed    the last sealed day. Of it and all earlier ones no more debits are taken
--   mark      the run id of the server that was told everything; see is_ours
--   telling   what om_tell answered: all that was told since then is still there; see tell
--   base, topups   the balance after the last top-up, and how many there were
--   notified  the highest threshold, in percent of base, that was announced since then

local VERSION = 2
local MOST = 9007199254740991

local run_id

-- INFO is slow, so it is asked once: this variable lives as long as the server does.
local function server_run_id()
    if not run_id then
        run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
    end
    return run_id
end

-- A server that lost its data, or came back with an old snapshot, has another run id. What such an
-- account says is not to be believed until it was opened again, from what ClickHouse has.
local function is_ours(mark)
    local run = server_run_id()
    return mark and string.sub(mark, 1, #run) == run
end

local function text(number)
    return string.format('%.0f', number)
end

-- Raises an error, before anything was written: a call is checked whole before it begins.
local function refuse(message)
    error({ err = 'INVALID ' .. message })
end

local function is_amount(number)
    return number and number == math.floor(number) and math.abs(number) <= MOST
end

local function amount_of(argument, name)
    local number = string.match(argument or '', '^-?%d+$') and tonumber(argument)
    if not is_amount(number) then refuse(name .. ' must be whole micro-credits') end
    return number
end

local function whole_of(argument, name)
    local number = amount_of(argument, name)
    if number < 0 then refuse(name .. ' must not be negative') end
    return number
end

local function expect(keys, is_right, usage)
    if #keys ~= 1 or not is_right then refuse('usage: ' .. usage) end
end

-- A field's number, 0 if it has none.
local function number_at(key, field)
    return tonumber(redis.call('HGET', key, field) or '0')
end

local function debits_of(key, day)
    return key .. ':debits:' .. day
end

-- The last day of which only the total is known.
local function sealed_until(key)
    return tonumber(redis.call('HGET', key, 'sealed') or '-1')
end

local function set(key, field, number)
    redis.call('HSET', key, field, text(number))
end

local function bounded(number)
    if not is_amount(number) then refuse('the account would pass 2^53 - 1 micro-credits') end
    return number
end

-- What a reply says of a sum of several amounts, each within the bound.
local function clamped(number)
    return math.max(-MOST, math.min(MOST, number))
end

local function now()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- What is in holds that have not ended. Few have ended: each change lets go of those.
local function held_now(key)
    local held = number_at(key, 'held')
    if held == 0 then return 0 end
    for _, hold in ipairs(redis.call('ZRANGEBYSCORE', key .. ':expiry', '-inf', now())) do
        held = held - number_at(key .. ':holds', hold)
    end
    return held
end

local function release(key, hold)
    local amount = redis.call('HGET', key .. ':holds', hold)
    if not amount then return 0 end
    redis.call('HDEL', key .. ':holds', hold)
    redis.call('ZREM', key .. ':expiry', hold)
    set(key, 'held', number_at(key, 'held') - tonumber(amount))
    return 1
end

local function release_ended(key)
    for _, hold in ipairs(redis.call('ZRANGEBYSCORE', key .. ':expiry', '-inf', now())) do
        release(key, hold)
    end
end

-- What may be spent, and whether a call that costs this much may be made. Credits that are
-- gone stop also a call that costs nothing.
local function verdict(key, cost)
    local fields = redis.call('HMGET', key, 'balance', 'limit', 'mark')
    if not is_ours(fields[3]) then return { 0, '0', 'unknown' } end
    local free = tonumber(fields[1] or '0') - held_now(key)
    if not fields[2] then return { 1, text(clamped(free)), 'unlimited' } end
    local remaining = clamped(free + tonumber(fields[2]))
    if remaining > 0 and remaining >= cost then return { 1, text(remaining), 'ok' } end
    return { 0, text(remaining), 'spent' }
end

-- FCALL_RO om_check 1 KEY [COST]: may this subject make a call (that costs COST)?
-- Reply: {1 or 0, what may be spent, word}. The words: ok; spent; unlimited (1, and the balance);
-- unknown (0: no account, or one that was not opened since the server started).
-- What may be spent is the balance, less what is held, and the limit added.
local function check(keys, args)
    expect(keys, #args <= 1, 'om_check 1 KEY [COST]')
    return verdict(keys[1], args[1] and whole_of(args[1], 'COST') or 0)
end

-- FCALL_RO om_account 1 KEY: all that the account says of itself.
-- Reply: {om_check's word, balance, limit or '' without end, held, base, topups, notified,
-- last sealed day or ''}. What it says is not all there is when the word is unknown.
local function account(keys, args)
    expect(keys, #args == 0, 'om_account 1 KEY')
    local key = keys[1]
    local function word_at(field) return redis.call('HGET', key, field) or '' end
    return { verdict(key, 0)[3], text(number_at(key, 'balance')), word_at('limit'),
        text(held_now(key)), text(number_at(key, 'base')), number_at(key, 'topups'),
        number_at(key, 'notified'), word_at('sealed') }
end

-- FCALL om_debit 1 KEY DAY (IDENTITY AMOUNT HOLD)...: takes off what events cost, each identity
-- once, and ends the holds that they name ('' for none). DAY is that of the winner's ingest.
-- At most 1000 events a call: it holds up every other one.
-- A hold is ended also by an event that was debited before, perhaps by somebody who did not know
-- what it names. So a name is for one hold: another of that name would end with a repeat.
-- Reply: {balance, base, topups, notified, {1 debited, 0 it was before, -1 its day is sealed ...}}.
local function debit(keys, args)
    expect(keys, #args >= 1 and (#args - 1) % 3 == 0, 'om_debit 1 KEY DAY (IDENTITY AMOUNT HOLD)...')
    local key, day = keys[1], text(whole_of(args[1], 'DAY'))
    local debits, is_sealed = debits_of(key, day), tonumber(day) <= sealed_until(key)
    local fresh, sum, results = {}, 0, {}
    for at = 2, #args, 3 do
        local identity, amount, result = args[at], amount_of(args[at + 1], 'AMOUNT'), 0
        if is_sealed then
            result = -1
        elseif not fresh[identity] and redis.call('HEXISTS', debits, identity) == 0 then
            fresh[identity], sum, result = text(amount), bounded(sum + amount), 1
        end
        results[#results + 1] = result
    end
    local balance = bounded(number_at(key, 'balance') - sum)
    local total = bounded(number_at(key, 'd:' .. day) + sum)
    for identity, amount in pairs(fresh) do redis.call('HSET', debits, identity, amount) end
    if next(fresh) then
        set(key, 'balance', balance)
        set(key, 'd:' .. day, total)
    end
    for at = 4, #args, 3 do
        if args[at] ~= '' then release(key, args[at]) end
    end
    return { text(balance), text(number_at(key, 'base')), number_at(key, 'topups'),
        number_at(key, 'notified'), results }
end

-- FCALL om_credit 1 KEY GRANT AMOUNT: adds credits once for each GRANT, an idempotency key; a
-- negative AMOUNT takes them back. Reply: {1 added or 0 it was before, balance}; an error that
-- begins with CONFLICT when GRANT was used with another amount.
local function credit(keys, args)
    expect(keys, #args == 2 and args[1] ~= '', 'om_credit 1 KEY GRANT AMOUNT')
    local key, amount = keys[1], amount_of(args[2], 'AMOUNT')
    local balance = number_at(key, 'balance')
    local before = redis.call('HGET', key .. ':grants', args[1])
    if before then
        if tonumber(before) == amount then return { 0, text(balance) } end
        return redis.error_reply('CONFLICT this grant has another amount: ' .. before)
    end
    balance = bounded(balance + amount)
    redis.call('HSET', key .. ':grants', args[1], text(amount))
    set(key, 'balance', balance)
    if amount > 0 then
        set(key, 'base', balance)
        set(key, 'topups', number_at(key, 'topups') + 1)
        set(key, 'notified', 0)
    end
    return { 1, text(balance) }
end

-- FCALL om_hold 1 KEY place HOLD AMOUNT MS: sets AMOUNT aside until an event that names HOLD is
-- debited, it is cancelled, or MS are over. Reply: as om_check; 1 = it is held (or was before).
-- FCALL om_hold 1 KEY cancel HOLD: the same reply, after the hold is gone, if there was one.
local function hold(keys, args)
    local usage = 'om_hold 1 KEY place HOLD AMOUNT MS, or om_hold 1 KEY cancel HOLD'
    local is_placed = args[1] == 'place'
    expect(keys, (is_placed and #args == 4 or args[1] == 'cancel' and #args == 2) and args[2] ~= '', usage)
    local key, id = keys[1], args[2]
    local amount = is_placed and whole_of(args[3], 'AMOUNT')
    local ends = is_placed and now() + whole_of(args[4], 'MS')
    release_ended(key)
    if not is_placed then
        release(key, id)
        return verdict(key, 0)
    end
    local found = verdict(key, amount)
    local before = redis.call('HGET', key .. ':holds', id)
    if before and tonumber(before) ~= amount then
        return redis.error_reply('CONFLICT this hold has another amount: ' .. before)
    end
    -- Its own amount is taken off already.
    if before then return { 1, found[2], found[3] == 'spent' and 'ok' or found[3] } end
    if found[1] == 0 then return found end
    local held = bounded(number_at(key, 'held') + amount)
    redis.call('HSET', key .. ':holds', id, text(amount))
    redis.call('ZADD', key .. ':expiry', text(ends), id)
    set(key, 'held', held)
    return { 1, verdict(key, 0)[2], found[3] }
end

-- FCALL om_tell 1 KEY: begins to tell this server all that there is to know of the account.
-- Reply: a token for om_open, the same to all who tell at a time: whatever one of them told since
-- it got the token is there for the others too, or the token is gone with it.
local function tell(keys, args)
    expect(keys, #args == 0, 'om_tell 1 KEY')
    local token = redis.call('HGET', keys[1], 'telling')
    if token then return token end
    local time = redis.call('TIME')
    token = server_run_id() .. ':' .. time[1] .. '.' .. time[2]
    redis.call('HSET', keys[1], 'telling', token)
    return token
end

local function set_limit(key, limit)
    if limit then set(key, 'limit', limit) else redis.call('HDEL', key, 'limit') end
end

-- FCALL om_open 1 KEY LIMIT TOKEN: says that since om_tell answered TOKEN all of the account was
-- told to this server, and how far below zero its balance may go ('' = without end).
-- Reply: {1 or 0, balance}; 0 and nothing changed when the account was lost meanwhile.
local function open(keys, args)
    expect(keys, #args == 2 and args[2] ~= '', 'om_open 1 KEY LIMIT TOKEN')
    local key, limit = keys[1], args[1] ~= '' and whole_of(args[1], 'LIMIT')
    local is_there = redis.call('HGET', key, 'telling') == args[2]
    if is_there then
        set_limit(key, limit)
        redis.call('HSET', key, 'mark', server_run_id())
    end
    return { is_there and 1 or 0, text(number_at(key, 'balance')) }
end

-- FCALL om_limit 1 KEY LIMIT: changes how far below zero the balance may go ('' = without end).
-- Reply: 1; 0 and nothing changed when the account is unknown.
local function limit(keys, args)
    expect(keys, #args == 1, 'om_limit 1 KEY LIMIT')
    local most = args[1] ~= '' and whole_of(args[1], 'LIMIT')
    if not is_ours(redis.call('HGET', keys[1], 'mark')) then return 0 end
    set_limit(keys[1], most)
    return 1
end

-- What is debited of the days before DAY that were never sealed.
local function never_sealed(key, day)
    local sealed, days, sum = sealed_until(key), {}, 0
    local fields = redis.call('HGETALL', key)
    for at = 1, #fields, 2 do
        local past = tonumber(string.match(fields[at], '^d:(%d+)$'))
        if past and past > sealed and past < day then
            days[#days + 1] = text(past)
            sum = sum + tonumber(fields[at + 1])
        end
    end
    return days, sum
end

-- FCALL om_seal 1 KEY DAY TOTAL AS_OF [keep]: sets what the events of a day cost, of which no more
-- debits are taken: the single ones are forgotten. Days are sealed in their order; one that was
-- passed over costs nothing. A day is sealed again when a late row comes. AS_OF grows with the time
-- at which TOTAL was read. With keep, nothing changes if it gave credits back.
-- Reply: {1 or 0, balance}; 0 = nothing changed: for keep, or a total that was read later is there.
local function seal(keys, args)
    local is_right = #args == 3 or #args == 4 and args[4] == 'keep'
    expect(keys, is_right, 'om_seal 1 KEY DAY TOTAL AS_OF [keep]')
    local key, day, total = keys[1], whole_of(args[1], 'DAY'), amount_of(args[2], 'TOTAL')
    local as_of, name = whole_of(args[3], 'AS_OF'), text(day)
    local balance = number_at(key, 'balance')
    if as_of < number_at(key, 's:' .. name) then return { 0, text(balance) } end
    local passed_over, taken = never_sealed(key, day)
    taken = taken + number_at(key, 'd:' .. name)
    if args[4] and total < taken then return { 0, text(balance) } end
    balance = bounded(balance + taken - total)
    for _, past in ipairs(passed_over) do
        redis.call('HDEL', key, 'd:' .. past)
        redis.call('UNLINK', debits_of(key, past))
    end
    set(key, 'balance', balance)
    set(key, 'd:' .. name, total)
    set(key, 's:' .. name, as_of)
    redis.call('UNLINK', debits_of(key, name))
    if day > sealed_until(key) then set(key, 'sealed', day) end
    return { 1, text(balance) }
end

-- FCALL om_forget 1 KEY: all of an account but its holds, so that it can be told from nothing.
-- It is unknown afterwards. Reply: OK.
local function forget(keys, args)
    expect(keys, #args == 0, 'om_forget 1 KEY')
    local key = keys[1]
    for _, field in ipairs(redis.call('HKEYS', key)) do
        local day = string.match(field, '^d:(%d+)$')
        if day then redis.call('UNLINK', debits_of(key, day)) end
    end
    local held = number_at(key, 'held')
    redis.call('UNLINK', key, key .. ':grants')
    if held ~= 0 then set(key, 'held', held) end
    return redis.status_reply('OK')
end

-- FCALL om_notified 1 KEY TOPUPS PERCENT: remembers that a threshold was announced, unless the
-- account was topped up meanwhile. Reply: 1 or 0.
local function notified(keys, args)
    expect(keys, #args == 2, 'om_notified 1 KEY TOPUPS PERCENT')
    local key, topups, percent = keys[1], whole_of(args[1], 'TOPUPS'), whole_of(args[2], 'PERCENT')
    if number_at(key, 'topups') ~= topups or number_at(key, 'notified') >= percent then return 0 end
    set(key, 'notified', percent)
    return 1
end

-- A server that passed its role on and took it back finds marks of its own, which know nothing of
-- what came between. So whatever changes an account takes away what other servers said of it.
local function changing(step)
    return function(keys, args)
        for _, field in ipairs(keys[1] and { 'mark', 'telling' } or {}) do
            local mark = redis.call('HGET', keys[1], field)
            if mark and not is_ours(mark) then redis.call('HDEL', keys[1], field) end
        end
        return step(keys, args)
    end
end

local READS = { 'no-writes' }
redis.register_function { function_name = 'om_check', callback = check, flags = READS }
redis.register_function { function_name = 'om_account', callback = account, flags = READS }
redis.register_function('om_debit', changing(debit))
redis.register_function('om_credit', changing(credit))
redis.register_function('om_hold', changing(hold))
redis.register_function('om_tell', changing(tell))
redis.register_function('om_open', changing(open))
redis.register_function('om_limit', changing(limit))
redis.register_function('om_seal', changing(seal))
redis.register_function('om_forget', changing(forget))
redis.register_function('om_notified', changing(notified))
-- FCALL_RO om_version 0: the version of this file.
redis.register_function {
    function_name = 'om_version', callback = function() return VERSION end, flags = READS }
