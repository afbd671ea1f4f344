-- Run by psql directly and through the proxy; all it prints must be the same.
\set VERBOSITY default
\pset pager off
SELECT current_database(), current_user, session_user;
\conninfo
\d
\d items
\d+ items
\d notes
\d cheap
\d+ cheap
\d by_quantity
\d parted
\d+ parted
\d items_pkey
\d counter
\d other.*
\d mood
\dt
\dt *.e*
\di
\dv
\dm
\ds
\dn
\dn+
\du
\dT
\dT+
\dD
\df
\df+ remark
\sf remark
\sv cheap
\dp
\dx
\dC mood
\dd
\dl
\dL
\dE
\dF
\do pg_catalog.=
\dy
\drds
\l
\z items
\dconfig search_path
-- what is not there
\d nowhere
\df nowhere
-- results and formats
SELECT * FROM items WHERE id < 4 ORDER BY id;
\x
SELECT * FROM notes WHERE id = 1;
\x
\t
SELECT 1;
\t
\a
SELECT 1 AS a, NULL AS b;
\a
SELECT id, name, quantity FROM items WHERE id < 3 ORDER BY id \gdesc
SELECT $1::int \gdesc
SELECT 1 AS one, 'two' AS two \gset
\echo :one :two
SELECT 'SELECT ' || n FROM generate_series(1, 3) n \gexec
SELECT quantity % 2 AS r, id % 3 AS c, count(*) FROM items GROUP BY 1, 2 ORDER BY 1, 2 \crosstabview
SELECT count(*) FROM items \g (format=csv)
\timing off
-- several statements in one message
SELECT 1\; SELECT 2 AS two\; SELECT 3;
SELECT 1\; SELECT 1 / 0\; SELECT 3;
BEGIN\; INSERT INTO items VALUES (900, 'x')\; SELECT count(*) FROM items\; ROLLBACK;
BEGIN\; INSERT INTO items VALUES (901, 'x')\; SELECT 1 / 0;
ROLLBACK;
SELECT count(*) FROM items;
INSERT INTO items VALUES (902, 'x')\; INSERT INTO items VALUES (1, 'again');
SELECT count(*) FROM items WHERE id > 800;
;
-- nothing
-- errors, with all that they carry
SELECT 1 / 0;
selec 1;
SELECT * FROM nowhere;
SELECT fail('P0001');
SELECT fail('23505');
INSERT INTO items VALUES (1, 'again');
INSERT INTO notes (item) VALUES (100000);
INSERT INTO moods VALUES (3, 'angry');
INSERT INTO moods (id, many) VALUES (3, -1);
\set VERBOSITY verbose
SELECT 1 / 0;
SELECT * FROM nowhere;
\errverbose
\set VERBOSITY sqlstate
SELECT fail('22012');
\set VERBOSITY default
SELECT remark('a notice');
SET client_min_messages = warning;
SELECT remark('no notice');
RESET client_min_messages;
DO $$ BEGIN RAISE WARNING 'a warning'; RAISE INFO 'information'; END $$;
-- transactions
BEGIN;
SELECT count(*) FROM items;
INSERT INTO items VALUES (910, 'in a block');
SELECT count(*) FROM items;
SAVEPOINT a;
SELECT 1 / 0;
SELECT 1;
SAVEPOINT b;
ROLLBACK TO a;
SELECT count(*) FROM items;
RELEASE a;
RELEASE a;
ROLLBACK;
COMMIT;
ROLLBACK;
BEGIN;
BEGIN;
SELECT 1 / 0;
COMMIT;
BEGIN;
SELECT 1 / 0;
\d items
SELECT 1;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SHOW transaction_isolation;
INSERT INTO items VALUES (911, 'refused');
ROLLBACK;
BEGIN;
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
SHOW transaction_isolation;
SELECT count(*) FROM items;
SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;
COMMIT;
START TRANSACTION READ ONLY;
SHOW transaction_read_only;
COMMIT AND CHAIN;
SHOW transaction_read_only;
ROLLBACK;
SAVEPOINT outside;
SET LOCAL timezone = 'Asia/Tokyo';
\set AUTOCOMMIT off
SELECT count(*) FROM items;
UPDATE items SET quantity = 50 WHERE id = 5 RETURNING id, quantity;
\echo :AUTOCOMMIT
ROLLBACK;
SELECT quantity FROM items WHERE id = 5;
COMMIT;
\set AUTOCOMMIT on
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT 1 / 0;
SELECT 'still alive';
COMMIT;
\set ON_ERROR_ROLLBACK off
-- cursors and portals
\set FETCH_COUNT 7
SELECT id, name FROM items WHERE id <= 20 ORDER BY id;
SELECT id / (id - 10) FROM items ORDER BY id;
\unset FETCH_COUNT
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM items ORDER BY id;
FETCH 3 FROM c;
FETCH BACKWARD 2 FROM c;
MOVE 100 IN c;
FETCH FROM c;
UPDATE items SET name = name WHERE id = 1;
CLOSE c;
FETCH FROM c;
ROLLBACK;
BEGIN;
DECLARE h CURSOR WITH HOLD FOR SELECT id FROM items ORDER BY id;
COMMIT;
FETCH 2 FROM h;
SELECT count(*) FROM items;
FETCH 2 FROM h;
CLOSE h;
-- copy, both ways
COPY items (id, name, quantity) FROM STDIN;
920	copied	1
921	copied too	2
\.
SELECT count(*) FROM items WHERE id > 900;
COPY items (id, name) FROM STDIN;
922	good
bad	line
\.
COPY (SELECT id, name FROM items WHERE id > 910 ORDER BY id) TO STDOUT;
COPY (SELECT id, name FROM items WHERE id > 910 ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER);
COPY nowhere TO STDOUT;
COPY (SELECT 1 / (3 - id) FROM items WHERE id < 5 ORDER BY id) TO STDOUT;
\copy (SELECT id FROM items WHERE id < 4 ORDER BY id) to stdout
\copy items (id, name) from stdin with (format csv)
930,"by \copy"
\.
\copy items from nowhere.txt
\copy nowhere from stdin
1
\.
COPY items (id, name) FROM STDIN\; SELECT count(*) FROM items WHERE id > 900\; COPY items (id, name) FROM STDIN;
940	first
\.
941	second
\.
DELETE FROM items WHERE id > 900;
-- settings
SHOW search_path;
SET search_path = other, public;
SELECT seven FROM elsewhere;
\d elsewhere
SHOW search_path;
RESET search_path;
SELECT seven FROM elsewhere;
SHOW timezone;
SET timezone = 'Europe/Rome';
SELECT '2024-07-01 12:00+00'::timestamptz;
BEGIN;
SET timezone = 'Asia/Tokyo';
SELECT '2024-07-01 12:00+00'::timestamptz;
SET LOCAL timezone = 'UTC';
SELECT '2024-07-01 12:00+00'::timestamptz;
ROLLBACK;
SHOW timezone;
SET datestyle = 'German, DMY';
SELECT date '2024-07-01';
RESET ALL;
SELECT date '2024-07-01';
SHOW application_name;
SET application_name = 'something else';
SELECT application_name, backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid();
SELECT count(*) FROM items;
SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid();
SET nonsense = 1;
SET work_mem = 'much';
SET app.user = 'ann';
SELECT current_setting('app.user');
SELECT set_config('app.user', 'bob', false);
SELECT current_setting('app.user');
BEGIN;
SELECT set_config('app.user', 'eve', true);
COMMIT;
SELECT current_setting('app.user');
SELECT current_setting('app.nobody', true);
SET ROLE pg_monitor;
SELECT current_user, session_user;
SELECT count(*) FROM items;
RESET ROLE;
SELECT current_user;
SHOW server_version_num;
SHOW transaction_isolation;
SET default_transaction_isolation = 'serializable';
SHOW transaction_isolation;
RESET default_transaction_isolation;
SHOW ALL nonsense;
\encoding LATIN1
SHOW client_encoding;
SELECT length('abc');
\encoding UTF8
SELECT 'é€', length('é€');
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SELECT 'a\nb';
RESET standard_conforming_strings;
SELECT 'a\nb';
DISCARD ALL;
SHOW timezone;
SHOW application_name;
-- a lock of the session that a failed statement took
SELECT pg_advisory_lock(43), 1 / (n - 1) FROM generate_series(1, 2) n;
SELECT count(*) FROM items;
SELECT pg_advisory_unlock(43);
SELECT pg_advisory_unlock(43);
DISCARD ALL;
-- prepared statements of SQL
PREPARE plus (int, int) AS SELECT $1 + $2;
EXECUTE plus (1, 2);
EXECUTE plus (1);
PREPARE plus AS SELECT 1;
SELECT count(*) FROM items;
EXECUTE plus (3, 4);
DEALLOCATE plus;
EXECUTE plus (1, 2);
DEALLOCATE ALL;
-- what stays with the session
CREATE TEMP TABLE mine (x int);
INSERT INTO mine VALUES (1), (2);
SELECT sum(x) FROM mine;
SELECT count(*) FROM items;
\d mine
BEGIN;
CREATE TEMP TABLE gone (x int) ON COMMIT DROP;
SELECT count(*) FROM gone;
COMMIT;
SELECT count(*) FROM gone;
DROP TABLE mine;
SELECT pg_advisory_lock(42), pg_advisory_unlock(42), pg_advisory_unlock(42);
BEGIN;
SELECT nextval('counter'), nextval('counter');
SELECT currval('counter');
COMMIT;
LISTEN news;
NOTIFY news, 'hello';
SELECT pg_notify('news', 'again');
BEGIN;
NOTIFY news, 'on commit';
SELECT 1;
COMMIT;
UNLISTEN *;
NOTIFY news, 'unheard';
CALL bump_twice();
SELECT id, quantity FROM items WHERE id < 3 ORDER BY id;
BEGIN;
CALL bump_twice();
ROLLBACK;
DO $$ BEGIN PERFORM set_config('timezone', 'Asia/Tokyo', false); END $$;
SHOW timezone;
RESET timezone;
-- what is written is read
UPDATE items SET quantity = 77 WHERE id = 7;
SELECT quantity FROM items WHERE id = 7;
SELECT sum(quantity) FROM items;
UPDATE items SET quantity = 78 WHERE id = 7;
SELECT sum(quantity) FROM items;
SELECT quantity, count(*) FROM items GROUP BY quantity ORDER BY quantity;
TRUNCATE parted;
SELECT count(*) FROM parted;
REFRESH MATERIALIZED VIEW by_quantity;
SELECT * FROM by_quantity ORDER BY 1;
CREATE TABLE fresh AS SELECT 1 AS x;
SELECT count(*) FROM fresh;
ALTER TABLE fresh ADD COLUMN y int DEFAULT 5;
SELECT * FROM fresh;
\d fresh
ALTER TABLE fresh DROP COLUMN x;
SELECT * FROM fresh;
DROP TABLE fresh;
SELECT * FROM fresh;
WITH gone AS (DELETE FROM items WHERE id = 200 RETURNING id) SELECT * FROM gone;
SELECT count(*) FROM items;
EXPLAIN (COSTS off) SELECT * FROM items WHERE id = 1;
VACUUM items;
BEGIN;
VACUUM items;
ROLLBACK;
SELECT 1 / (3 - nextval('counter')) \watch 0.01
SELECT n, 1 / (5 - n) FROM generate_series(1, 4) n;
SELECT repeat('x', 100), n FROM generate_series(1, 3) n;
SELECT length(repeat('x', 3000000));
\c
SELECT current_database();
\echo done
\q
