-- The logs of all supervisors, with the newest line that is known of each: its head.
CREATE TABLE logs (
  chain TEXT PRIMARY KEY,
  place TEXT NOT NULL,
  seq BIGINT NOT NULL,
  sha256 TEXT NOT NULL
);

-- Every line of every log as it stands there; those from before the chain have numbers below 1.
-- `torn`: in hex, what a crash left between the line before and this one. Of an outcome the agent
-- is empty: its intent tells it.
CREATE TABLE log_lines (
  chain TEXT NOT NULL REFERENCES logs (chain),
  seq BIGINT NOT NULL,
  record TEXT NOT NULL,
  act TEXT NOT NULL,
  agent TEXT NOT NULL,
  at DOUBLE PRECISION NOT NULL,
  torn TEXT NOT NULL,
  line TEXT NOT NULL,
  PRIMARY KEY (chain, seq)
);
CREATE INDEX log_lines_at ON log_lines (record, at);
CREATE INDEX log_lines_agent ON log_lines (agent, at);
CREATE INDEX log_lines_act ON log_lines (act);
