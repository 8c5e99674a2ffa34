-- What reviewers share. `content` is JSON, as review/record.py writes it.
CREATE TABLE reviews (
  agent TEXT NOT NULL,
  number BIGINT NOT NULL,
  base TEXT NOT NULL,
  content TEXT NOT NULL,
  PRIMARY KEY (agent, number)
);

-- Comments that are not sent yet, in the order of `place`.
CREATE TABLE comments (
  agent TEXT NOT NULL,
  review BIGINT NOT NULL,
  id TEXT NOT NULL,
  place BIGINT NOT NULL,
  content TEXT NOT NULL,
  PRIMARY KEY (agent, review, id)
);

-- What reviewers have seen of an agent's work.
CREATE TABLE viewed (
  agent TEXT NOT NULL,
  key TEXT NOT NULL,
  PRIMARY KEY (agent, key)
);

-- The first one counts. `payload` is what was signed, byte for byte.
CREATE TABLE verdicts (
  agent TEXT NOT NULL,
  review BIGINT NOT NULL,
  payload BYTEA NOT NULL,
  signature TEXT NOT NULL,
  PRIMARY KEY (agent, review)
);

-- What was done with a verdict so far.
CREATE TABLE verdict_steps (
  agent TEXT NOT NULL,
  review BIGINT NOT NULL,
  step TEXT NOT NULL,
  PRIMARY KEY (agent, review, step)
);

-- Git objects behind reviews, in parts: "base/OID", or "review/AGENT/NUMBER" on top of a base.
-- Without a digest: they are too large to be kept.
CREATE TABLE packs (
  name TEXT PRIMARY KEY,
  base TEXT NOT NULL,
  size BIGINT NOT NULL,
  sha256 TEXT NOT NULL
);
CREATE TABLE pack_parts (
  name TEXT NOT NULL REFERENCES packs (name) ON DELETE CASCADE,
  part BIGINT NOT NULL,
  content BYTEA NOT NULL,
  PRIMARY KEY (name, part)
);
