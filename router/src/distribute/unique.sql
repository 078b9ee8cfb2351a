CREATE TABLE $INDEX ($COLUMN $COLUMN_TYPE NOT NULL, $KEY $KEY_TYPE NOT NULL);

CREATE UNLOGGED TABLE $CHANGES (
    transaction pg_catalog.xid8 NOT NULL,
    place pg_catalog.int8 NOT NULL,
    operation pg_catalog.text NOT NULL,
    value $COLUMN_TYPE,
    key $KEY_TYPE,
    PRIMARY KEY (transaction, place));

CREATE FUNCTION $RECORD() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $switchyard$
DECLARE
    last int8 := coalesce(nullif(current_setting('switchyard.changes', true), ''), '0')::int8;
BEGIN
    PERFORM set_config('switchyard.changes', (last + 2)::text, true);
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO $CHANGES VALUES (pg_current_xact_id(), last + 1, 'T', NULL, NULL);
    ELSIF TG_OP = 'UPDATE' AND NEW.$COLUMN = OLD.$COLUMN THEN
        INSERT INTO $CHANGES VALUES (pg_current_xact_id(), last + 1, 'U', NEW.$COLUMN, NEW.$KEY);
    ELSE
        IF TG_OP <> 'INSERT' AND OLD.$COLUMN IS NOT NULL THEN
            INSERT INTO $CHANGES VALUES (pg_current_xact_id(), last + 1, 'D', OLD.$COLUMN, OLD.$KEY);
        END IF;
        IF TG_OP <> 'DELETE' AND NEW.$COLUMN IS NOT NULL THEN
            INSERT INTO $CHANGES VALUES (pg_current_xact_id(), last + 2, 'I', NEW.$COLUMN, NEW.$KEY);
        END IF;
    END IF;
    RETURN NULL;
END
$switchyard$;

CREATE FUNCTION $CHECK() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $switchyard$
BEGIN
    IF EXISTS (SELECT FROM $CHANGES AS c WHERE c.transaction = NEW.transaction AND c.place = NEW.place) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'table ' || $TABLE_LITERAL || ' was written past its global unique index ' || $INDEX_LITERAL,
            DETAIL = 'The index is kept by the router, where a statement names the table.',
            HINT = 'Write the table by a statement of its own, through the router, and not by code or at the end of a transaction; if the index has just been created, run the transaction again.';
    END IF;
    RETURN NULL;
END
$switchyard$;

CREATE FUNCTION $TAKE(taken pg_catalog.int8, most pg_catalog.int4) RETURNS SETOF pg_catalog.text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $switchyard$
DECLARE
    last int8;
BEGIN
    SELECT max(n.place) INTO last FROM (
        SELECT c.place FROM $CHANGES AS c
        WHERE c.transaction = pg_current_xact_id() AND c.place > taken ORDER BY c.place LIMIT most) AS n;
    RETURN QUERY
    WITH gone AS (
        DELETE FROM $CHANGES AS c
        WHERE c.transaction = pg_current_xact_id() AND c.place > taken AND c.place <= last RETURNING c AS change, c.*)
    SELECT concat_ws(' ', g.operation, coalesce($BUCKET, 0), g.place,
                     encode(convert_to(g.change::text, getdatabaseencoding()), 'hex'))
    FROM gone AS g ORDER BY g.place;
END
$switchyard$;

CREATE FUNCTION $APPLY(changes pg_catalog.text[]) RETURNS pg_catalog.text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $switchyard$
#variable_conflict use_column
DECLARE
    switchyard_changes $CHANGES[] := ARRAY(
        SELECT convert_from(decode(c.hex, 'hex'), getdatabaseencoding())::$CHANGES
        FROM unnest(changes) WITH ORDINALITY AS c (hex, place) ORDER BY c.place);
    switchyard_change $CHANGES;
    said text;
BEGIN
    IF NOT EXISTS (SELECT FROM unnest(switchyard_changes) AS c WHERE c.operation <> 'I') THEN
        INSERT INTO $INDEX SELECT c.value, c.key FROM unnest(switchyard_changes) AS c;
        RETURN NULL;
    END IF;
    FOREACH switchyard_change IN ARRAY switchyard_changes LOOP
        CASE switchyard_change.operation
        WHEN 'I' THEN
            INSERT INTO $INDEX VALUES (switchyard_change.value, switchyard_change.key);
        WHEN 'T' THEN
            TRUNCATE $INDEX;
        WHEN 'U' THEN
            INSERT INTO $INDEX VALUES (switchyard_change.value, switchyard_change.key)
            ON CONFLICT ($COLUMN) DO UPDATE SET $KEY = excluded.$KEY;
        ELSE
            DELETE FROM $INDEX AS i WHERE i.$COLUMN = switchyard_change.value;
            IF NOT FOUND THEN
                -- It is there, and cannot be seen yet: whoever stored it has committed on the shard of the row, and not here.
                INSERT INTO $INDEX VALUES (switchyard_change.value, switchyard_change.key)
                ON CONFLICT ($COLUMN) DO UPDATE SET $KEY = excluded.$KEY;
                DELETE FROM $INDEX AS i WHERE i.$COLUMN = switchyard_change.value;
            END IF;
        END CASE;
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN unique_violation THEN
    GET STACKED DIAGNOSTICS said = PG_EXCEPTION_DETAIL;
    RETURN said;
END
$switchyard$;

-- The shard key of the row that has a value, for who may read the index and all rows of the table.
CREATE FUNCTION $FIND(pg_catalog.text) RETURNS pg_catalog.text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' AS $switchyard$
BEGIN
    IF has_table_privilege($INDEX_NAME, 'SELECT') AND has_table_privilege($TABLE_NAME, 'SELECT') AND NOT row_security_active($TABLE_NAME) THEN
        RETURN (SELECT i.$KEY::text FROM $INDEX AS i WHERE i.$COLUMN = $1::$COLUMN_TYPE);
    END IF;
    RETURN NULL;
END
$switchyard$;

GRANT EXECUTE ON FUNCTION $TAKE(pg_catalog.int8, pg_catalog.int4), $APPLY(pg_catalog.text[]), $FIND(pg_catalog.text) TO PUBLIC;

CREATE CONSTRAINT TRIGGER "switchyard" AFTER INSERT ON $CHANGES DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION $CHECK();
CREATE TRIGGER $ROWS AFTER INSERT OR DELETE ON $TABLE FOR EACH ROW EXECUTE FUNCTION $RECORD();
CREATE TRIGGER $UPDATES AFTER UPDATE ON $TABLE FOR EACH ROW
    WHEN (OLD.$COLUMN IS DISTINCT FROM NEW.$COLUMN OR OLD.$KEY IS DISTINCT FROM NEW.$KEY) EXECUTE FUNCTION $RECORD();
CREATE TRIGGER $TRUNCATES AFTER TRUNCATE ON $TABLE FOR EACH STATEMENT EXECUTE FUNCTION $RECORD()
