-- Movements of buckets that have begun. Where buckets are is what bucket_maps says at every moment; this says where they are to be, and where they were.
CREATE TABLE switchyard.movements (
    database text PRIMARY KEY REFERENCES switchyard.databases ON DELETE CASCADE,
    former bytea NOT NULL CHECK (octet_length(former) = 32768),
    target bytea NOT NULL CHECK (octet_length(target) = 32768),
    -- Rows may be on their way now: routers run again what is cancelled for them.
    active bool NOT NULL,
    -- Nobody is to go on with it for now.
    paused bool NOT NULL DEFAULT false,
    began_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

CREATE TRIGGER revise AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON switchyard.movements
    FOR EACH STATEMENT EXECUTE FUNCTION switchyard.revise();

-- Who plans by this catalog, and by which revision all that it does: nothing planned by an earlier one is on its way any more. Who has not renewed its row for a while is gone.
CREATE TABLE switchyard.routers (
    id text PRIMARY KEY,
    revision int8 NOT NULL,
    renewed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
