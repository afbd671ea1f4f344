-- The fixed schema under the labelled statements: one object for each thing that decides where a statement may go.
CREATE ROLE app LOGIN;
CREATE SCHEMA annex;

-- Plain tables with foreign keys: deals and reviews follow a deleted hotel, bookings lose their deal, payments forbid it.
CREATE TABLE hotels (id int PRIMARY KEY, name text, city text, stars int);
CREATE TABLE deals (id int PRIMARY KEY, hotel_id int REFERENCES hotels ON DELETE CASCADE, price_per_night numeric,
    is_available boolean, checkin_date date, created_at timestamptz);
CREATE TABLE reviews (id int PRIMARY KEY, deal_id int REFERENCES deals ON DELETE CASCADE ON UPDATE CASCADE, body text, score int);
CREATE TABLE bookings (id int PRIMARY KEY, deal_id int REFERENCES deals ON DELETE SET NULL, note text, at timestamptz);
CREATE TABLE payments (id int PRIMARY KEY, booking_id int REFERENCES bookings, amount numeric);
CREATE TABLE staff (id int PRIMARY KEY, boss int REFERENCES staff ON DELETE SET NULL, name text, hired text);
CREATE TABLE "Guests" (id int PRIMARY KEY, "Name" text);
CREATE TABLE "only" (id int);
CREATE TABLE annex.hotels (id int PRIMARY KEY, city text);
CREATE TABLE public.settings (key text PRIMARY KEY, value text);

-- What pgbench makes.
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));

-- Types.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE tone AS ENUM ('low', 'high');
CREATE TYPE place AS (street text, number int);
CREATE DOMAIN score AS int CHECK (VALUE BETWEEN 0 AND 100);
CREATE TABLE profiles (id int PRIMARY KEY, mood mood, score score, tags text[], data jsonb, period daterange, home place,
    born date, web inet, photo bytea, seen timestamptz, code char(10));

-- Partitions and inheritance.
CREATE TABLE events (id int, at date NOT NULL, kind text) PARTITION BY RANGE (at);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (kind);
CREATE TABLE events_2026_click PARTITION OF events_2026 FOR VALUES IN ('click');
CREATE TABLE events_2026_rest PARTITION OF events_2026 DEFAULT;
CREATE TABLE animals (id int, name text);
CREATE TABLE dogs (breed text) INHERITS (animals);
CREATE TABLE cats (lives int) INHERITS (animals);

-- Tables whose writes do more than they say.
CREATE TABLE audit_log (id int GENERATED ALWAYS AS IDENTITY, what text);
CREATE TABLE audited (id int PRIMARY KEY, name text);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO audit_log (what) VALUES (TG_OP); RETURN coalesce(NEW, OLD); END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON audited FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE);
CREATE TRIGGER audit AFTER DELETE ON children FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TABLE ruled (id int);
CREATE RULE copy AS ON INSERT TO ruled DO ALSO INSERT INTO audit_log (what) VALUES ('ruled');

-- Functions.
CREATE FUNCTION log_visit(what text) RETURNS int LANGUAGE plpgsql VOLATILE AS
    $$ BEGIN INSERT INTO audit_log (what) VALUES ($1); RETURN 1; END $$;
CREATE FUNCTION sly(what text) RETURNS int LANGUAGE sql STABLE AS 'SELECT public.log_visit($1)';
CREATE FUNCTION quiet(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
CREATE TABLE described (id int, city text);
CREATE FUNCTION label(described) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1.city';
CREATE TABLE compared (id int);
CREATE FUNCTION distance(compared, compared) RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN log_visit(''row''); END';
CREATE OPERATOR <-> (LEFTARG = compared, RIGHTARG = compared, FUNCTION = distance);
CREATE FUNCTION lower(mood) RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN PERFORM log_visit($1::text); RETURN 1; END';
CREATE FUNCTION some_hotels() RETURNS SETOF hotels LANGUAGE sql STABLE AS 'SELECT * FROM hotels';
CREATE FUNCTION annex.helper() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE PROCEDURE tidy_up() LANGUAGE plpgsql AS $$ BEGIN DELETE FROM audit_log; END $$;
CREATE FUNCTION tone_sum(tone, tone) RETURNS int LANGUAGE plpgsql VOLATILE AS
    $$ BEGIN RETURN log_visit('tone'); END $$;
CREATE OPERATOR + (LEFTARG = tone, RIGHTARG = tone, FUNCTION = tone_sum);
CREATE FUNCTION to_tone(text) RETURNS tone LANGUAGE plpgsql VOLATILE AS
    $$ BEGIN PERFORM log_visit('cast'); RETURN 'low'; END $$;
CREATE CAST (text AS tone) WITH FUNCTION to_tone(text);
CREATE FUNCTION near(mood, mood) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1::text = $2::text';
CREATE TABLE cards (id int, tone tone);
CREATE TABLE stamped (id int PRIMARY KEY DEFAULT quiet(1), at timestamptz DEFAULT now());
CREATE TABLE graded (id int PRIMARY KEY, points int CHECK (points BETWEEN 0 AND 100), half int GENERATED ALWAYS AS (points / 2) STORED);
CREATE TABLE checked (id int CHECK (quiet(id) > 0));
CREATE TABLE indexed (id int, name text);
CREATE INDEX ON indexed (quiet(id));
CREATE DOMAIN odd AS int CHECK (quiet(VALUE) > 0);
CREATE TABLE oddities (id int, n odd);

-- Tables that a replica does not have, or shows otherwise.
CREATE UNLOGGED TABLE scratch (id int);
CREATE SEQUENCE numbers;
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE remote (id int) SERVER elsewhere;

-- Row security.
CREATE TABLE tenants (id int PRIMARY KEY, open boolean);
CREATE TABLE notes (id int, tenant int, body text);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON notes USING (tenant = current_setting('app.tenant', true)::int);
CREATE TABLE rooms (id int, tenant int, visible boolean);
ALTER TABLE rooms ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON rooms USING (visible AND tenant IN (SELECT id FROM tenants WHERE open));
CREATE TABLE drafts (id int, owner text);
ALTER TABLE drafts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON drafts USING (owner = current_user);
CREATE TABLE watched (id int);
ALTER TABLE watched ENABLE ROW LEVEL SECURITY;
CREATE POLICY spy ON watched USING (log_visit('read') = 1);
CREATE TABLE idle_policy (id int);
CREATE POLICY spy ON idle_policy USING (log_visit('read') = 1);

-- Views.
CREATE VIEW cities AS SELECT h.city, count(*) AS deals, avg(d.price_per_night) AS price
    FROM hotels h JOIN deals d ON d.hotel_id = h.id GROUP BY h.city;
CREATE VIEW big_cities AS SELECT * FROM cities WHERE deals > 3;
CREATE VIEW open_deals AS SELECT * FROM deals WHERE is_available;
CREATE VIEW clock AS SELECT now() AS at, id FROM hotels;
CREATE VIEW fresh_deals AS SELECT id FROM deals WHERE created_at > now() - interval '30 days';
CREATE VIEW me AS SELECT current_user AS who, id FROM hotels;
CREATE VIEW dice AS SELECT random() AS n, id FROM hotels;
CREATE VIEW busy AS SELECT sly(name) AS n FROM hotels;
CREATE VIEW queue AS SELECT * FROM bookings FOR UPDATE;
CREATE VIEW relations AS SELECT relname FROM pg_class;
CREATE VIEW days AS SELECT hired::date AS day FROM staff;
CREATE VIEW buckets AS SELECT date_trunc('day', created_at) AS day, count(*) AS n FROM deals GROUP BY 1;
CREATE VIEW counters AS SELECT last_value FROM numbers;
CREATE VIEW tenant_notes AS SELECT body FROM notes;
CREATE VIEW sampled AS SELECT * FROM hotels TABLESAMPLE BERNOULLI (50);
CREATE VIEW handled AS SELECT id, name FROM staff WHERE boss IS NULL;
CREATE FUNCTION handle() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO audit_log (what) VALUES ('handled'); RETURN NULL; END $$;
CREATE TRIGGER handle INSTEAD OF INSERT ON handled FOR EACH ROW EXECUTE FUNCTION handle();
CREATE RECURSIVE VIEW chain (id, boss) AS
    SELECT id, boss FROM staff WHERE boss IS NULL UNION ALL SELECT s.id, s.boss FROM staff s JOIN chain c ON s.boss = c.id;

-- Rows, the same on every run.
INSERT INTO hotels SELECT i, 'Hotel ' || i, (ARRAY['Toronto', 'Paris', 'Rome', 'Oslo'])[1 + i % 4], 1 + i % 5 FROM generate_series(1, 40) i;
INSERT INTO annex.hotels SELECT i, 'Rome' FROM generate_series(1, 3) i;
INSERT INTO deals SELECT i, 1 + i % 40, 50 + i % 97, i % 3 > 0, date '2026-01-01' + i % 90, timestamptz '2026-01-01 00:00:00+00' + i * interval '1 hour'
    FROM generate_series(1, 200) i;
INSERT INTO reviews SELECT i, i, 'fine', i % 6 FROM generate_series(1, 100) i;
INSERT INTO bookings SELECT i, i, 'note ' || i, timestamptz '2026-02-01 00:00:00+00' + i * interval '1 minute' FROM generate_series(1, 50) i;
INSERT INTO payments SELECT i, i, i * 1.5 FROM generate_series(1, 20) i;
INSERT INTO staff SELECT i, nullif(i / 2, 0), 'Person ' || i, '2020-01-0' || (1 + i % 9) FROM generate_series(1, 9) i;
INSERT INTO "Guests" SELECT i, 'Guest ' || i FROM generate_series(1, 5) i;
INSERT INTO "only" VALUES (1), (2);
INSERT INTO settings VALUES ('since', '2026-01-01'), ('until', 'today');
INSERT INTO pgbench_branches SELECT 1, 0;
INSERT INTO pgbench_tellers SELECT i, 1, 0 FROM generate_series(1, 10) i;
INSERT INTO pgbench_accounts SELECT i, 1, 0 FROM generate_series(1, 100) i;
INSERT INTO profiles SELECT i, 'happy', i, ARRAY['a', 'b'], jsonb_build_object('n', i, 'day', '2026-01-02'), daterange('2026-01-01', '2026-02-01'),
    ROW('Main', i)::place, date '1990-01-01' + i, '10.0.0.1', '\x0102', '2026-01-01 00:00:00+00', '2026-01-01' FROM generate_series(1, 10) i;
INSERT INTO events SELECT i, date '2025-12-01' + i, (ARRAY['click', 'view'])[1 + i % 2] FROM generate_series(1, 90) i;
INSERT INTO animals VALUES (1, 'any');
INSERT INTO dogs VALUES (2, 'dog', 'mutt');
INSERT INTO cats VALUES (3, 'cat', 9);
INSERT INTO parents VALUES (1), (2);
INSERT INTO children VALUES (1, 1), (2, 2);
INSERT INTO cards VALUES (1, 'low'), (2, 'high');
INSERT INTO graded VALUES (1, 50), (2, 70);
INSERT INTO tenants VALUES (1, true), (2, false);
INSERT INTO notes VALUES (1, 1, 'a'), (2, 2, 'b');
INSERT INTO rooms VALUES (1, 1, true), (2, 2, true), (3, 1, false);
INSERT INTO drafts VALUES (1, 'app'), (2, 'other');
INSERT INTO idle_policy VALUES (1);
INSERT INTO described VALUES (1, 'Rome');
INSERT INTO compared VALUES (1);

CREATE MATERIALIZED VIEW city_stats AS SELECT city, count(*) AS n FROM hotels GROUP BY city;
CREATE UNIQUE INDEX ON city_stats (city);
CREATE MATERIALIZED VIEW visited AS SELECT sly(name) AS n FROM hotels WHERE false;

GRANT USAGE ON SCHEMA annex TO app;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
GRANT ALL ON ALL TABLES IN SCHEMA annex TO app;
ANALYZE;
