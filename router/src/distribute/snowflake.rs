//! `create_snowflake_generator`: on every shard a function that makes numbers that no shard makes twice, nor another one (ADR 0019).

use super::places::Places;
use super::{Request, refused};
use crate::execute::failure::Failure;

/// So many shards can be told apart.
const NUMBERS: i64 = 1024;

/// What shards are numbered by; two calls at a time would give one number twice.
pub const BEGIN: &str = "\
BEGIN; SET LOCAL lock_timeout = '10s';
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('switchyard.decisions'))";

/// Whether a shard makes numbers.
pub const IS_NUMBERED: &str =
    "SELECT pg_catalog.to_regclass('switchyard.snowflake_shard') IS NOT NULL";

/// What it makes them as.
pub const NUMBER: &str = "SELECT number FROM switchyard.snowflake_shard";

/// The session's lock is given back whatever happens: one of the transaction would keep all others waiting until its end.
const INSTALL: &str = "\
CREATE SCHEMA IF NOT EXISTS switchyard;
GRANT USAGE ON SCHEMA switchyard TO PUBLIC;
CREATE TABLE IF NOT EXISTS switchyard.snowflake_shard (number pg_catalog.int2 PRIMARY KEY CHECK (number BETWEEN 0 AND 1023));
INSERT INTO switchyard.snowflake_shard SELECT $NUMBER WHERE NOT EXISTS (SELECT FROM switchyard.snowflake_shard);
CREATE SEQUENCE IF NOT EXISTS switchyard.snowflake;
CREATE OR REPLACE FUNCTION switchyard.gen_snowflake_id() RETURNS pg_catalog.int8 LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    key CONSTANT int8 := hashtext('switchyard.snowflake');
    next int8;
    shard int8;
BEGIN
    PERFORM pg_advisory_lock(key);
    -- Milliseconds since 2024, and a number within them. The clock may stand still or go back, this does not.
    SELECT greatest(last_value + 1, floor(extract(epoch FROM clock_timestamp()) * 1000 - 1704067200000)::int8 << 12), number
      INTO STRICT next, shard FROM switchyard.snowflake, switchyard.snowflake_shard;
    PERFORM setval('switchyard.snowflake', next);
    PERFORM pg_advisory_unlock(key);
    RETURN (next >> 12 << 22) | (shard << 12) | (next & 4095);
EXCEPTION WHEN query_canceled OR OTHERS THEN
    PERFORM pg_advisory_unlock(key);
    RAISE;
END
$function$;
COMMIT";

/// Numbers that no shard has yet, if these are those of the others.
pub fn free(known: &[i64]) -> impl Iterator<Item = i64> {
    (0..NUMBERS).filter(|number| !known.contains(number))
}

/// Makes the function on a shard that is to make numbers as `number`, if it makes none yet, and ends the transaction.
#[must_use]
pub fn install(number: i64) -> String {
    INSTALL.replace("$NUMBER", &number.to_string())
}

/// Makes it on every shard; on those that have it nothing changes. What is good to know then.
pub(super) async fn run(request: &Request<'_>) -> Result<String, Failure> {
    let settings = request.services.settings.load_full();
    let mut places = Places::open(request, &settings).await?;
    let mut numbers = Vec::with_capacity(places.len());
    for index in 0..places.len() {
        places.ask(index, BEGIN).await?;
        numbers.push(number(&mut places, index).await?);
    }
    let known: Vec<i64> = numbers.iter().copied().flatten().collect();
    if let Some(twice) = known.iter().find(|number| count(&known, **number) > 1) {
        let message = format!("two shards make numbers as shard {twice}");
        return Err(refused("55000", message)
            .detail("One of them has been made as a copy of the other.")
            .hint("UPDATE switchyard.snowflake_shard on one of them, by its name in a hint.")
            .into());
    }
    let mut free = free(&known);
    let mut said = Vec::with_capacity(places.len());
    for (index, number) in numbers.into_iter().enumerate() {
        let number = number.or_else(|| free.next());
        let number =
            number.ok_or_else(|| refused("54000", "there are too many shards".to_owned()))?;
        places.ask(index, &install(number)).await?;
        said.push(format!(
            "\"{}\" makes numbers as shard {number}",
            places.shard(index).name
        ));
    }
    Ok(said.join(", "))
}

/// What a shard makes numbers as, if it does.
async fn number(places: &mut Places<'_>, index: usize) -> Result<Option<i64>, Failure> {
    let value = |rows: Vec<Vec<Option<String>>>| rows.into_iter().next()?.into_iter().next()?;
    let numbered = places.ask(index, IS_NUMBERED).await?;
    if value(numbered).as_deref() != Some("t") {
        return Ok(None);
    }
    let number = places.ask(index, NUMBER).await?;
    Ok(value(number).and_then(|number| number.parse().ok()))
}

fn count(numbers: &[i64], number: i64) -> usize {
    numbers.iter().filter(|known| **known == number).count()
}
