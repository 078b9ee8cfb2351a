-- How transactions of the shards have ended of which a change of the tables above is a part: the row is written with it.
CREATE TABLE switchyard.decisions (
    gid text PRIMARY KEY,
    committed bool NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
