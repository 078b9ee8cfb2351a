-- Whether it was `rollback` that set out to where the movement leads: another one goes on until rows are there, and turns round then.
ALTER TABLE switchyard.movements ADD COLUMN turned bool NOT NULL DEFAULT false;
