#!/bin/bash
# Runs once, on the primary's first start: the roles of the application, of the proxy's control plane, and of the replicas.
set -euo pipefail
psql --set=ON_ERROR_STOP=1 --username=postgres --dbname=shop \
  --set=app="$APP_PASSWORD" --set=control="$CONTROL_PASSWORD" --set=replication="$REPLICATION_PASSWORD" <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'app';
CREATE ROLE pgladder LOGIN PASSWORD :'control';
GRANT pg_monitor TO pgladder;
CREATE ROLE replication LOGIN REPLICATION PASSWORD :'replication';
GRANT CREATE ON SCHEMA public TO app;
SQL
echo "host replication replication all scram-sha-256" >> "$PGDATA/pg_hba.conf"
