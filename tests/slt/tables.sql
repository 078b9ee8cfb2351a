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
CREATE TYPE colour AS ENUM ('red', 'green', 'blue');
