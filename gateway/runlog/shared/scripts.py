"""What has to happen in one step on the server, as Lua scripts; each says its keys, its arguments and its answer.

Loaded at every connect, called by their digests. Time is the server's (`TIME`), since gateways' clocks may differ.
Scripts that change one run answer with an Answer's number. The server runs one script at a time, so what a script
has looked at cannot change before it is done: that is the fence against a gateway that was away.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum


class Answer(IntEnum):
    """What a script that changes one run says."""

    DONE = 1
    MISSING = 0
    FENCED = -1


class Script:
    """A Lua script and its digest, by which it is called: `(*script.call, number_of_keys, *keys, *arguments)`."""

    __slots__ = ("call", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.call = ("EVALSHA", hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: run, log. ARGV: owner, first ordinal, number of the last chunk, new state or '', the oldest ordinal to keep or '',
# milliseconds that an open run's keys live, then a field and its value for each entry. Entries that are there already are
# passed over: after a lost connection the owner sends again what was not acknowledged.
APPEND = Script("""
local head = redis.call('HMGET', KEYS[1], 'owner', 'ended', 'seq', 'lost')
if not head[1] then return 0 end
if head[1] ~= ARGV[1] or head[4] then return -1 end
local seq = tonumber(head[3])
local ordinal = tonumber(ARGV[2])
local last = ordinal + (#ARGV - 6) / 2 - 1
if last <= seq then return 1 end
if head[2] then return -1 end
local fresh = redis.call('EXISTS', KEYS[2]) == 0
for i = 7, #ARGV, 2 do
  if ordinal > seq then redis.call('XADD', KEYS[2], string.format('%d-0', ordinal), ARGV[i], ARGV[i + 1]) end
  ordinal = ordinal + 1
end
if fresh then redis.call('PEXPIRE', KEYS[2], ARGV[6]) end
if ARGV[4] == '' then
  redis.call('HSET', KEYS[1], 'seq', last, 'chunks', ARGV[3])
else
  redis.call('HSET', KEYS[1], 'seq', last, 'chunks', ARGV[3], 'state', ARGV[4])
end
if ARGV[5] ~= '' then redis.call('XTRIM', KEYS[2], 'MINID', ARGV[5]) end
return 1
""")

_END = """
local function finish(ordinal, chunks, state, document, ttl, id, claim)
  redis.call('XADD', KEYS[2], string.format('%d-0', ordinal), 'e', document, 'n', chunks)
  redis.call('HSET', KEYS[1], 'seq', ordinal, 'chunks', chunks, 'state', state, 'end', document, 'ended', now)
  redis.call('SREM', KEYS[3], id)
  redis.call('ZADD', KEYS[4], now + ttl, id)
  redis.call('PEXPIRE', KEYS[1], ttl)
  redis.call('PEXPIRE', KEYS[2], ttl)
  if claim then redis.call('PEXPIRE', claim, ttl) end
end
"""

# KEYS: run, log, owned, expiry. ARGV: owner, ordinal, number of the last chunk, outcome, end document, milliseconds that
# an ended run's keys live, run id.
FINISH = Script(
    _NOW
    + _END
    + """
local head = redis.call('HMGET', KEYS[1], 'owner', 'ended', 'seq', 'lost', 'claim')
if not head[1] then return 0 end
if head[1] ~= ARGV[1] or head[4] then return -1 end
if head[2] then return 1 end
finish(math.max(tonumber(ARGV[2]), head[3] + 1), ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7], head[5])
return 1
"""
)

# End a run that its owner can't end. KEYS: run, log, owned, expiry, gateways. ARGV: owner, run id, outcome, end document,
# milliseconds that an ended run's keys live, '1' to end it though the owner's lease is good (it asks itself).
# FENCED: the owner is alive again.
LOSE = Script(
    _NOW
    + _END
    + """
local lease = redis.call('ZSCORE', KEYS[5], ARGV[1])
if ARGV[6] ~= '1' and lease and tonumber(lease) >= now then return -1 end
local head = redis.call('HMGET', KEYS[1], 'owner', 'ended', 'seq', 'chunks', 'claim')
if not head[1] or head[1] ~= ARGV[1] or head[2] then
  redis.call('SREM', KEYS[3], ARGV[2])
  return 0
end
redis.call('HSET', KEYS[1], 'lost', 1)
finish(head[3] + 1, head[4], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[2], head[5])
return 1
"""
)

# KEYS: run, owned, runs, expiry, gateways, and the claim where there is one. ARGV: run id, owner, document,
# milliseconds that an open run's keys live, milliseconds of a lease, prefix of runs' keys, the claim's fingerprint.
# Answer: {'new', created at}, {'run', id of the run that has the claim} or {'conflict', that id}.
REGISTER = Script(
    _NOW
    + """
if KEYS[6] then
  local claim = redis.call('HMGET', KEYS[6], 'run', 'fingerprint')
  if claim[1] and redis.call('EXISTS', ARGV[6] .. '{' .. claim[1] .. '}') == 1 then
    if claim[2] ~= ARGV[7] then return {'conflict', claim[1]} end
    return {'run', claim[1]}
  end
  redis.call('HSET', KEYS[6], 'run', ARGV[1], 'fingerprint', ARGV[7])
  redis.call('PEXPIRE', KEYS[6], ARGV[4])
  redis.call('HSET', KEYS[1], 'claim', KEYS[6])
end
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'record', ARGV[3], 'created', now, 'state', 'queued', 'seq', 0, 'chunks', 0)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('ZADD', KEYS[4], now + ARGV[4], ARGV[1])
redis.call('ZADD', KEYS[5], 'NX', now + ARGV[5], ARGV[2])
return {'new', now}
"""
)

# Make the record of a run again that the server has lost. KEYS: run, log, owned, runs, expiry, epoch, and the claim where
# there is one. ARGV: run id, owner, document, created at, state, last ordinal, last chunk, milliseconds that an open run's
# keys live, the epoch in which this server had the record or '', the claim's fingerprint. FENCED: it has not lost
# anything since, so the run was ended by others, and its time is over. An old stream is of no use without its record, and
# its ids could be in the way.
RESTORE = Script(
    _NOW
    + """
local head = redis.call('HMGET', KEYS[1], 'owner', 'ended', 'lost')
if head[1] then
  if head[1] ~= ARGV[2] or head[3] then return -1 end
  return 1
end
if ARGV[9] ~= '' and redis.call('GET', KEYS[6]) == ARGV[9] then return -1 end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'record', ARGV[3], 'created', ARGV[4], 'state', ARGV[5], 'seq', ARGV[6], 'chunks', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[8])
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1])
redis.call('ZADD', KEYS[5], now + ARGV[8], ARGV[1])
if KEYS[7] and redis.call('EXISTS', KEYS[7]) == 0 then
  redis.call('HSET', KEYS[7], 'run', ARGV[1], 'fingerprint', ARGV[10])
  redis.call('PEXPIRE', KEYS[7], ARGV[8])
  redis.call('HSET', KEYS[1], 'claim', KEYS[7])
end
return 1
"""
)

# Let an open run's keys live on. KEYS: run, log, expiry. ARGV: run id, owner, milliseconds.
KEEP = Script(
    _NOW
    + """
local head = redis.call('HMGET', KEYS[1], 'owner', 'ended', 'claim')
if head[1] ~= ARGV[2] or head[2] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if head[3] then redis.call('PEXPIRE', head[3], ARGV[3]) end
redis.call('ZADD', KEYS[3], now + ARGV[3], ARGV[1])
return 1
"""
)

# Forget a run that nobody has heard of. KEYS: run, log, owned, runs, expiry. ARGV: run id, owner.
DISOWN = Script("""
local head = redis.call('HMGET', KEYS[1], 'owner', 'ended', 'claim')
if head[1] ~= ARGV[2] or head[2] then return 0 end
if head[3] then redis.call('DEL', head[3]) end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
return 1
""")

# Renew a lease. KEYS: gateways, inbox, epoch. ARGV: gateway, milliseconds of a lease, milliseconds that an inbox lives,
# the first inbox id that is not read yet, an epoch should there be none. Answer: the epoch.
RENEW = Script(
    _NOW
    + """
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('SET', KEYS[3], ARGV[5], 'NX')
return redis.call('GET', KEYS[3])
"""
)

# Take a gateway from the list once it owns no open run. KEYS: gateways, owned, inbox. ARGV: gateway, '1' where it asks
# itself. Answer: 1 when it is gone.
RETIRE = Script(
    _NOW
    + """
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[2] ~= '1' and lease and tonumber(lease) >= now then return 0 end
if redis.call('SCARD', KEYS[2]) > 0 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
"""
)

# KEYS: gateways. Answer: each gateway's id and by how many milliseconds its lease has lapsed (0: it is good).
LAPSED = Script(
    _NOW
    + """
local entries = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 2, #entries, 2 do entries[i] = math.max(0, now - tonumber(entries[i])) end
return entries
"""
)

# Forget the index entries of runs whose time is over. KEYS: runs, expiry. ARGV: at most so many. Answer: how many.
TRIM = Script(
    _NOW
    + """
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])
if #ids > 0 then
  redis.call('ZREM', KEYS[1], unpack(ids))
  redis.call('ZREM', KEYS[2], unpack(ids))
end
return #ids
"""
)

# Put a command for a run's owner into its inbox. KEYS: run, gateways. ARGV: prefix of inboxes' keys, at most so many
# messages, milliseconds that an inbox lives, then the message's fields and values. Answer: the owner, or nil where the run
# is over, unknown or its owner's lease has lapsed.
TELL_OWNER = Script(
    _NOW
    + """
local head = redis.call('HMGET', KEYS[1], 'owner', 'ended')
if not head[1] or head[2] then return nil end
local lease = redis.call('ZSCORE', KEYS[2], head[1])
if not lease or tonumber(lease) < now then return nil end
local inbox = ARGV[1] .. head[1]
redis.call('XADD', inbox, 'MAXLEN', ARGV[2], '*', unpack(ARGV, 4))
redis.call('PEXPIRE', inbox, ARGV[3])
return head[1]
"""
)

# KEYS: inbox. ARGV: at most so many messages, milliseconds that an inbox lives, then the message's fields and values.
TELL = Script("""
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], '*', unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

# Use a session, made if there is none. KEYS: session. ARGV: milliseconds that it lives, its metadata or ''.
# Answer: all its fields and values.
TOUCH = Script(
    _NOW
    + """
redis.call('HSETNX', KEYS[1], 'created', now)
if ARGV[2] ~= '' then redis.call('HSETNX', KEYS[1], 'metadata', ARGV[2]) end
redis.call('HSET', KEYS[1], 'used', now)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.call('HGETALL', KEYS[1])
"""
)

# Give a session its home in a pool, unless it has one on a gateway that lives. KEYS: session, gateways. ARGV: field of the
# pool, gateway, home's document, the document to replace or '', milliseconds that a session without any lives.
# Answer: the home in force.
SETTLE = Script(
    _NOW
    + """
local home = redis.call('HGET', KEYS[1], ARGV[1])
if home and home ~= ARGV[4] then
  local lease = redis.call('ZSCORE', KEYS[2], cjson.decode(home)['gateway'])
  if lease and tonumber(lease) >= now then return home end
end
redis.call('HSETNX', KEYS[1], 'created', now)
redis.call('HSET', KEYS[1], 'used', now, ARGV[1], ARGV[3])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
return ARGV[3]
"""
)

SCRIPTS = (APPEND, FINISH, LOSE, REGISTER, RESTORE, KEEP, DISOWN, RENEW, RETIRE, LAPSED, TRIM, TELL_OWNER, TELL, TOUCH, SETTLE)
