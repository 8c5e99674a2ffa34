-- The number of the newest change, in one row that every transaction takes that is told.
CREATE TABLE feed (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  seq BIGINT NOT NULL
);
INSERT INTO feed (id, seq) VALUES (1, 0);

-- The last change of each thing that others want to hear of.
CREATE TABLE changes (
  topic TEXT NOT NULL,
  key TEXT NOT NULL,
  seq BIGINT NOT NULL,
  PRIMARY KEY (topic, key)
);
CREATE INDEX changes_seq ON changes (seq);

-- model.Record; times are seconds since 1970.
CREATE TABLE records (
  agent TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  host TEXT NOT NULL,
  is_frozen BIGINT NOT NULL CHECK (is_frozen IN (0, 1)),
  saved_in TEXT,
  saving_in TEXT,
  verb TEXT,
  review BIGINT,
  verdict TEXT,
  since DOUBLE PRECISION
);

-- Processes that hold agents, and when they were last heard, by the database's clock.
CREATE TABLE holders (
  process TEXT PRIMARY KEY,
  who TEXT NOT NULL,
  place TEXT NOT NULL,
  file TEXT NOT NULL,
  beat DOUBLE PRECISION NOT NULL
);

-- Which process has which verb at work on an agent.
CREATE TABLE claims (
  agent TEXT PRIMARY KEY,
  verb TEXT NOT NULL,
  process TEXT NOT NULL REFERENCES holders (process),
  since DOUBLE PRECISION NOT NULL
);
