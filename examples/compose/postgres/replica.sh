#!/bin/bash
# The entry point of a replica: copies its primary if it has no data yet, then follows it.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    PGPASSWORD=$REPLICATION_PASSWORD pg_basebackup --host "$PRIMARY" --username replicator --pgdata "$PGDATA" \
        --slot replica --write-recovery-conf --checkpoint fast --wal-method stream
    chown -R postgres:postgres "$PGDATA"
    chmod 700 "$PGDATA"
fi
exec docker-entrypoint.sh "$@"
