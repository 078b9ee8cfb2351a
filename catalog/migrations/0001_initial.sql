-- Tables, shards and nodes of every database, as they are now.
CREATE TABLE switchyard.databases (
    name text PRIMARY KEY
);

-- position is the shard's index; nothing may ever renumber it while buckets, ranges or rows refer to it.
CREATE TABLE switchyard.shards (
    database text NOT NULL REFERENCES switchyard.databases ON DELETE CASCADE,
    position int4 NOT NULL CHECK (position >= 0),
    name text NOT NULL,
    weight int8 NOT NULL CHECK (weight >= 0),
    PRIMARY KEY (database, position),
    UNIQUE (database, name)
);

CREATE TABLE switchyard.nodes (
    database text NOT NULL,
    shard int4 NOT NULL,
    position int4 NOT NULL CHECK (position >= 0),
    host text NOT NULL,
    port int4 NOT NULL CHECK (port BETWEEN 1 AND 65535),
    role text NOT NULL CHECK (role IN ('primary', 'replica')),
    zone text,
    ssl_mode text NOT NULL CHECK (ssl_mode IN ('disable', 'prefer', 'require', 'verify-ca', 'verify-full')),
    ssl_root_cert text,
    PRIMARY KEY (database, shard, position),
    UNIQUE (database, host, port),
    FOREIGN KEY (database, shard) REFERENCES switchyard.shards ON DELETE CASCADE
);

CREATE UNIQUE INDEX one_primary ON switchyard.nodes (database, shard) WHERE role = 'primary';

-- A table that is not here is unsharded: whole on the first shard.
CREATE TABLE switchyard.tables (
    database text NOT NULL REFERENCES switchyard.databases ON DELETE CASCADE,
    schema text NOT NULL,
    name text NOT NULL,
    method text NOT NULL CHECK (method IN ('reference', 'hash', 'modulo', 'range', 'list')),
    shard_key text CHECK ((shard_key IS NULL) = (method = 'reference')),
    colocate_schema text,
    colocate_name text CHECK ((colocate_name IS NULL) = (colocate_schema IS NULL)),
    -- For modulo, range and list: which keys are on which shard.
    placement jsonb CHECK ((placement IS NULL) = (method IN ('reference', 'hash'))),
    PRIMARY KEY (database, schema, name)
);

-- Which shard owns which bucket: 16,384 shard positions of two bytes, big-endian. The epoch grows by one with every change and
-- changes only by compare-and-swap.
CREATE TABLE switchyard.bucket_maps (
    database text PRIMARY KEY REFERENCES switchyard.databases ON DELETE CASCADE,
    epoch int8 NOT NULL CHECK (epoch > 0),
    owners bytea NOT NULL CHECK (octet_length(owners) = 32768)
);

-- One row: grows with every change of anything above, by whomever it is made.
CREATE TABLE switchyard.revision (
    number int8 NOT NULL,
    only_row bool PRIMARY KEY DEFAULT true CHECK (only_row)
);
INSERT INTO switchyard.revision (number) VALUES (1);

CREATE FUNCTION switchyard.revise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE switchyard.revision SET number = number + 1;
    PERFORM pg_catalog.pg_notify('switchyard', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER revise AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON switchyard.databases
    FOR EACH STATEMENT EXECUTE FUNCTION switchyard.revise();
CREATE TRIGGER revise AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON switchyard.shards
    FOR EACH STATEMENT EXECUTE FUNCTION switchyard.revise();
CREATE TRIGGER revise AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON switchyard.nodes
    FOR EACH STATEMENT EXECUTE FUNCTION switchyard.revise();
CREATE TRIGGER revise AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON switchyard.tables
    FOR EACH STATEMENT EXECUTE FUNCTION switchyard.revise();
CREATE TRIGGER revise AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON switchyard.bucket_maps
    FOR EACH STATEMENT EXECUTE FUNCTION switchyard.revise();
