-- Why a snapshot was made (model.Origin), and the name and the pin that a person gave it.
ALTER TABLE snapshots ADD COLUMN cause TEXT NOT NULL DEFAULT 'pause';
ALTER TABLE snapshots ADD COLUMN told TEXT NOT NULL DEFAULT '';
ALTER TABLE snapshots ADD COLUMN made_by TEXT NOT NULL DEFAULT '';
ALTER TABLE snapshots ADD COLUMN title TEXT NOT NULL DEFAULT '';
ALTER TABLE snapshots ADD COLUMN is_pinned BIGINT NOT NULL DEFAULT 0 CHECK (is_pinned IN (0, 1));
