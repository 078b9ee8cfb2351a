-- Tables of the differential tests besides the web shop: one for each other way to distribute.
CREATE TABLE accounts (id integer PRIMARY KEY, owner text NOT NULL, balance bigint NOT NULL DEFAULT 0);
CREATE TABLE regions (code text, name text, area double precision);
CREATE TABLE sessions (token uuid PRIMARY KEY, started date, data bytea);
CREATE TABLE labels (word varchar(40) PRIMARY KEY, weight real, tags text[]);
CREATE TABLE notes (id serial PRIMARY KEY, body text, made timestamptz DEFAULT '2026-01-01 00:00:00+00');
CREATE TABLE amounts (amount numeric(6,2) PRIMARY KEY, note text);
CREATE TABLE tags (tag varchar(3) PRIMARY KEY, note text);
CREATE TABLE codes (code char(5) PRIMARY KEY, note text);
CREATE TABLE moments (at timestamp(0) PRIMARY KEY, note text);
CREATE DOMAIN price AS numeric(8,2);
CREATE TYPE colour AS ENUM ('red', 'green', 'blue');
-- Code that only reads, whatever it is declared as, and a view that calls it.
CREATE FUNCTION spent_by(bigint) RETURNS numeric LANGUAGE sql AS 'SELECT coalesce(sum(total), 0) FROM orders WHERE user_id = $1';
CREATE FUNCTION spends_more(a bigint, b bigint) RETURNS boolean LANGUAGE plpgsql AS
  'DECLARE first numeric; BEGIN SELECT spent_by(a) INTO first; RETURN first > spent_by(b); END';
CREATE FUNCTION users_of(text) RETURNS SETOF users LANGUAGE sql STABLE AS 'SELECT * FROM users WHERE country = $1';
CREATE FUNCTION twice(integer) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 2 * $1; END';
CREATE VIEW spenders AS SELECT id, name, spent_by(id) AS spent FROM users;
CREATE TABLE readings (id integer PRIMARY KEY, small smallint, number integer, large bigint, amount numeric, ok boolean,
    day date, at timestamp, made timestamptz, word text COLLATE "C", label text COLLATE "und-x-icu", code char(6), data bytea,
    uid uuid, weight double precision, kind varchar(5));
CREATE FUNCTION user_row(bigint) RETURNS users LANGUAGE sql AS 'SELECT row($1, ''made'', NULL, ''kr'', NULL)::users';
CREATE TABLE entries (id bigint, part integer DEFAULT 1, word varchar(5), amount numeric(6,2) CHECK (amount < 1000), made timestamptz DEFAULT now(),
    uid uuid DEFAULT gen_random_uuid(), doubled numeric GENERATED ALWAYS AS (amount * 2) STORED, PRIMARY KEY (id, part));
CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN IF NEW.word = ''drop'' THEN RETURN NULL; END IF; NEW.word := upper(NEW.word); RETURN NEW; END';
CREATE TRIGGER checked BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION leave_out();
CREATE TABLE tokens (note text, id uuid DEFAULT gen_random_uuid() PRIMARY KEY, made timestamptz DEFAULT now());
CREATE TABLE numbered (id serial PRIMARY KEY, owner text, made timestamptz DEFAULT now());
CREATE TABLE posts (author integer NOT NULL, number bigserial, word text DEFAULT 'none', short smallserial, PRIMARY KEY (author, number));
CREATE TABLE issued (id integer GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 10), shop integer, PRIMARY KEY (shop, id));
CREATE TABLE stamps (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text);
CREATE SEQUENCE tickets START 7;
CREATE TABLE queued (ticket text DEFAULT 'T' || nextval('tickets') PRIMARY KEY, who text);
-- Rows that move.
CREATE TABLE places (owner integer, number integer, word varchar(9) DEFAULT 'none', weight numeric(8,2), made timestamptz,
    doubled integer GENERATED ALWAYS AS (number * 2) STORED, kind colour, tags text[], data bytea, country text REFERENCES countries,
    serial integer GENERATED ALWAYS AS IDENTITY, CHECK (number < 900), PRIMARY KEY (owner, number)) PARTITION BY RANGE (owner);
CREATE TABLE places_low PARTITION OF places FOR VALUES FROM (MINVALUE) TO (100);
CREATE TABLE places_high PARTITION OF places FOR VALUES FROM (100) TO (1000);
CREATE TABLE loose (id bigint, word text);
CREATE TABLE houses (id integer PRIMARY KEY, street text);
CREATE TABLE rooms (house integer REFERENCES houses ON DELETE CASCADE, number integer, PRIMARY KEY (house, number));
