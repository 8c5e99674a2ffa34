-- model.Birth, as catalogue/birth.py writes it: a JSON object; empty: of the plain kind.
ALTER TABLE records ADD COLUMN birth TEXT NOT NULL DEFAULT '';
