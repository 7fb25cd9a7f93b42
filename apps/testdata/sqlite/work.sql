.bail on
PRAGMA journal_mode = DELETE;
PRAGMA cache_size = 200;
CREATE TABLE account(id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance INTEGER NOT NULL);
CREATE TABLE movement(id INTEGER PRIMARY KEY, source INTEGER, target INTEGER, amount INTEGER);
CREATE INDEX movement_by_source ON movement(source);
BEGIN IMMEDIATE;
