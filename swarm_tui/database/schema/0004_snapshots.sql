-- Complete snapshots of all agents; their files are on the hosts. `place` is empty where it was not
-- told. `is_going`: it is being removed, so that nobody need look for it.
CREATE TABLE snapshots (
  agent TEXT NOT NULL,
  id TEXT NOT NULL,
  host TEXT NOT NULL,
  place TEXT NOT NULL,
  name TEXT NOT NULL,
  created DOUBLE PRECISION NOT NULL,
  size_bytes BIGINT NOT NULL,
  hypervisor TEXT NOT NULL,
  is_frozen BIGINT NOT NULL CHECK (is_frozen IN (0, 1)),
  digest TEXT NOT NULL,
  is_going BIGINT NOT NULL CHECK (is_going IN (0, 1)),
  PRIMARY KEY (agent, id)
);
