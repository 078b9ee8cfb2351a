-- A movement leads from one layout to another: besides the bucket map, the placements of the tables that have no hash keys, as a list of their schemas, names, methods and placements.
ALTER TABLE switchyard.movements
    ADD former_methods jsonb NOT NULL DEFAULT '[]',
    ADD target_methods jsonb NOT NULL DEFAULT '[]';
