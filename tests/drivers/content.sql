-- What the suites of drivers find in their databases. Nothing in it depends on the clock.
CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, quantity int DEFAULT 0, price numeric(10, 2), added date);
INSERT INTO items SELECT n, 'item ' || n, n % 7, n * 1.25, date '2024-01-01' + n FROM generate_series(1, 200) n;
CREATE INDEX items_quantity ON items (quantity);
CREATE TABLE notes (id serial PRIMARY KEY, item int REFERENCES items ON DELETE CASCADE, body text, tags text[], extra jsonb);
INSERT INTO notes (item, body, tags, extra)
    SELECT n, 'note ' || n, ARRAY['a' || n, 'b'], jsonb_build_object('n', n) FROM generate_series(1, 50) n;
CREATE VIEW cheap AS SELECT id, name FROM items WHERE price < 10;
CREATE MATERIALIZED VIEW by_quantity AS SELECT quantity, count(*) AS items FROM items GROUP BY quantity;
CREATE TABLE parted (id int, part int) PARTITION BY LIST (part);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
INSERT INTO parted SELECT n, 1 + n % 2 FROM generate_series(1, 20) n;
CREATE SCHEMA other;
CREATE TABLE other.elsewhere AS SELECT 7 AS seven;
CREATE SEQUENCE counter;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE moods (id int PRIMARY KEY, mood mood, pair pair, many positive);
INSERT INTO moods VALUES (1, 'ok', (1, 'x'), 3), (2, NULL, NULL, NULL);
CREATE FUNCTION remark(word text) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN RAISE NOTICE 'remark: %', word USING DETAIL = 'a detail', HINT = 'a hint'; RETURN length(word); END $$;
CREATE FUNCTION fail(code text) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'failed with %', code USING ERRCODE = code, DETAIL = 'why', TABLE = 'items'; END $$;
CREATE PROCEDURE bump_twice() LANGUAGE plpgsql AS
    $$ BEGIN UPDATE items SET quantity = quantity + 1 WHERE id = 1; COMMIT;
             UPDATE items SET quantity = quantity + 1 WHERE id = 2; END $$;
COMMENT ON TABLE items IS 'what there is';
