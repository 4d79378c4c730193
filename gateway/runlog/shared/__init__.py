"""The history of runs in a Redis or Valkey server that many gateways share. Knows nothing of HTTP, nor of runs/.

`log.SharedLog` is what a gateway holds. The parts: `commands` (the one connection for writes and questions), `recorder`
and `writer` (what our runs say, on its way), `reader` and `following` (what others' runs say), `membership` (who lives),
`inbox` (what gateways tell each other), `directory` (where runs are found), `sessions`; below them `scripts`, `entries`,
`records`, `keys`, `link`, `address`.

The data model. Every name begins with the prefix, `gateway:` unless set; the two keys of a run share a hash tag.

    key                type    what it holds                                    who writes           how it goes
    run:{R}            hash    R's record: see below                            R's owner; a sweeper ttl after the end; open: renewed
    run:{R}:log        stream  R's entries, ids <ordinal>-0: c a batch,         R's owner; a sweeper as its record; oldest entries
                               s a status, e the end with n chunks              (the end)            over the bounds
    runs               zset    R by the time it was registered, for the list    R's owner            entries by any sweeper
    expiry             zset    R by the time its keys go                        as the record        entries by any sweeper
    owned:G            set     the open runs of gateway G                       G; a sweeper         empty with the last run's end
    gateways           zset    G by the time its lease lapses                   G                    entry: G on leaving; a sweeper
    inbox:G            stream  commands to G: kind, from, content               any gateway          60 s after G's last renewal
    claim:K            hash    the run and fingerprint of idempotency key K     R's owner            with R's record
    session:S          hash    created, used, metadata, home:<pool>             any gateway          its time to live after a use
    ticket:T           string  there once one-time ticket T was used            any gateway          when T has expired
    epoch              string  a random word, new when the server was emptied   any gateway          never: one key

    fields of a record     record (JSON, never changes), owner, created, state, seq (the last ordinal), chunks (the last
                           chunk's number), claim (its key); at the end: end (JSON), ended; lost, where a sweeper ended it

Invariants. A run's entries have consecutive ordinals and its chunks consecutive numbers, both from 1; a missing number is
told to readers as a gap, whatever lost it. The end is the last entry, written once. Only the owner in the record writes
entries, and only while the run is open; that is looked at in the same step. What the server forgets (no persistence,
a restart) its owners make again, and go on: the runs live, chunks that were only there are a gap.

The server should not evict keys by itself (`maxmemory-policy noeviction`): a record that goes while its run is open ends
the run. One primary is needed (replicas and a failover are fine, which may lose what was not replicated, as above);
registering and sweeping touch keys of several slots, so a Redis Cluster is not served.
"""
