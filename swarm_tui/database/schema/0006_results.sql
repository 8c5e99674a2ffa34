-- What came of agents that were ended. `content` is JSON, as results.py writes it.
CREATE TABLE results (
  agent TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  ended DOUBLE PRECISION NOT NULL,
  content TEXT NOT NULL
);

-- Shells that persons have open, each told again before `until`, by the database's clock.
CREATE TABLE shells (
  id TEXT PRIMARY KEY,
  agent TEXT NOT NULL,
  who TEXT NOT NULL,
  until DOUBLE PRECISION NOT NULL
);
