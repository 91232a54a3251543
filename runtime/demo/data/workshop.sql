-- The books of an invented piano workshop: who owns what, and what was done to it. Money is in crowns.

CREATE TABLE customers (
    id        INTEGER PRIMARY KEY,
    name      TEXT NOT NULL,
    town      TEXT NOT NULL,
    kind      TEXT NOT NULL CHECK (kind IN ('private', 'school', 'church', 'stage')),
    since     INTEGER NOT NULL
);

CREATE TABLE instruments (
    id          INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    kind        TEXT NOT NULL CHECK (kind IN ('upright', 'grand', 'square')),
    maker       TEXT NOT NULL,
    built       INTEGER NOT NULL,
    serial      INTEGER NOT NULL
);

CREATE TABLE repairs (
    id            INTEGER PRIMARY KEY,
    instrument_id INTEGER NOT NULL REFERENCES instruments (id),
    fault         TEXT NOT NULL,
    worker        TEXT NOT NULL CHECK (worker IN ('Tomas', 'Ida', 'Nuria')),
    status        TEXT NOT NULL CHECK (status IN ('waiting', 'open', 'done', 'collected')),
    taken_in      TEXT NOT NULL,
    hours         REAL NOT NULL,
    price         INTEGER NOT NULL
);

INSERT INTO customers (id, name, town, kind, since) VALUES
    (1, 'Agnes Tolliver', 'Westmere', 'private', 2009),
    (2, 'Saint Orban', 'Westmere', 'church', 1998),
    (3, 'Millbrook School', 'Millbrook', 'school', 2004),
    (4, 'Pavel Drummond', 'Oberau', 'private', 2018),
    (5, 'Tannery Lane Players', 'Westmere', 'stage', 2011),
    (6, 'Rosa Ferrant', 'Port Ellery', 'private', 2021),
    (7, 'Westmere Town Hall', 'Westmere', 'stage', 1996),
    (8, 'Harbour School', 'Port Ellery', 'school', 2015),
    (9, 'Jonas Wick', 'Millbrook', 'private', 2020),
    (10, 'Lucia Marchetti', 'Westmere', 'private', 2022);

INSERT INTO instruments (id, customer_id, kind, maker, built, serial) VALUES
    (1, 1, 'upright', 'Aldous & Sons', 1954, 48213),
    (2, 2, 'grand', 'Kessler', 1931, 10977),
    (3, 3, 'upright', 'Bramwell', 1988, 220418),
    (4, 3, 'upright', 'Bramwell', 1988, 220431),
    (5, 4, 'grand', 'Kessler', 1967, 31502),
    (6, 5, 'grand', 'Ostrander', 1979, 7740),
    (7, 5, 'square', 'Fenn', 1842, 0),
    (8, 6, 'upright', 'Aldous & Sons', 1972, 61100),
    (9, 7, 'grand', 'Ostrander', 2003, 9958),
    (10, 8, 'upright', 'Bramwell', 1995, 231007),
    (11, 9, 'upright', 'Kessler', 1949, 18804),
    (12, 10, 'grand', 'Bramwell', 2012, 260115);

INSERT INTO repairs (id, instrument_id, fault, worker, status, taken_in, hours, price) VALUES
    (1, 9, 'sostenuto rod drops the lowest note', 'Ida', 'collected', '2026-01-13', 3.0, 175),
    (2, 1, 'five keys stick in wet weather', 'Nuria', 'collected', '2026-01-20', 2.5, 170),
    (3, 3, 'three treble strings broken', 'Nuria', 'collected', '2026-01-27', 2.0, 84),
    (4, 2, 'pitch 20 cents low', 'Ida', 'collected', '2026-02-03', 3.5, 180),
    (5, 11, 'more than thirty loose pins', 'Tomas', 'waiting', '2026-02-10', 1.0, 1450),
    (6, 6, 'hammers worn flat', 'Ida', 'collected', '2026-02-17', 4.0, 210),
    (7, 5, 'pedal lyre creaks', 'Nuria', 'collected', '2026-02-24', 2.5, 145),
    (8, 12, 'una corda squeaks', 'Nuria', 'collected', '2026-03-03', 0.5, 34),
    (9, 7, 'crack in the sound board, buzzing', 'Tomas', 'open', '2026-03-10', 11.0, 980),
    (10, 4, 'action uneven after moving', 'Ida', 'done', '2026-03-17', 6.0, 380),
    (11, 10, 'two bass strings dull', 'Nuria', 'waiting', '2026-03-24', 1.5, 128),
    (12, 8, 'damper felt clings', 'Nuria', 'open', '2026-03-31', 2.0, 136),
    (13, 9, 'action regulation before the season', 'Ida', 'done', '2026-04-07', 8.0, 540),
    (14, 6, 'sostenuto pedal holds everything', 'Nuria', 'open', '2026-04-14', 1.5, 175),
    (15, 2, 'trap lever cracked', 'Tomas', 'waiting', '2026-04-21', 0.5, 145),
    (16, 5, 'regulation of the action', 'Ida', 'open', '2026-04-28', 5.0, 540),
    (17, 1, 'tuning', 'Ida', 'done', '2026-05-05', 1.5, 95),
    (18, 12, 'tuning and one treble string', 'Nuria', 'done', '2026-05-12', 2.0, 148);
