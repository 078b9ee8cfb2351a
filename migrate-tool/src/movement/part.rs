//! As much of what is to move as may move at a time: the rows of a group cannot be written meanwhile.

use switchyard_catalog::Layout;
use switchyard_schema::{BUCKETS, Key, Keys, Literal, LiteralForm, Method, Shift};

use super::Error;
use super::family::Family;
use super::tables::{Moving, first};
use crate::servers::Server;

/// So many values are listed at a time, and at most, to divide those that are not.
const LISTED: usize = 500;
const MOST_LISTED: usize = 4096;

/// As much of a shift as has about so many rows. What has one key stays together.
pub(super) async fn part(
    whole: &Shift,
    now: &Layout,
    (family, source): (&mut Family, &mut Server),
    rows: u64,
) -> Result<Shift, Error> {
    let keys = match &whole.keys {
        Keys::Buckets(buckets) => {
            let owners = now.buckets.owners().iter();
            let owned = owners.filter(|owner| **owner == whole.from).count();
            let slots = BUCKETS as f64;
            let there = family.density(source, owned as f64 / slots).await?;
            Keys::Buckets(buckets[..share(there, slots, rows, buckets.len())].to_vec())
        }
        Keys::Remainders {
            modulus,
            remainders,
        } => {
            let owned = owned(now, &family.tables, whole);
            let there = family.density(source, owned).await?;
            let count = share(there, *modulus as f64, rows, remainders.len());
            Keys::Remainders {
                modulus: *modulus,
                remainders: remainders[..count].to_vec(),
            }
        }
        Keys::Range { from, below } => range((from, below), &family.tables, source, rows).await?,
        Keys::Values(values) => values_of(values, &family.tables, source, rows).await?,
        Keys::Others(listed) => others(listed, &family.tables, source, rows).await?,
    };
    Ok(Shift {
        keys,
        ..whole.clone()
    })
}

/// How many slots of `most` have about so many rows, where `there` would be in all of them; one at least.
fn share(there: f64, slots: f64, rows: u64, most: usize) -> usize {
    let each = (there / slots).max(f64::MIN_POSITIVE);
    ((rows as f64 / each) as usize).clamp(1, most)
}

/// Which part of all remainders is on the shard.
fn owned(now: &Layout, tables: &[Moving], shift: &Shift) -> f64 {
    let method = tables
        .first()
        .and_then(|table| now.methods.get(&table.name));
    let Some(Method::Modulo(shards)) = method else {
        return 1.0;
    };
    let here = shards.iter().filter(|shard| **shard == shift.from).count();
    here as f64 / shards.len().max(1) as f64
}

/// The lower part of a range.
async fn range(
    (from, below): (&Option<Literal>, &Option<Literal>),
    tables: &[Moving],
    source: &mut Server,
    rows: u64,
) -> Result<Keys, Error> {
    let whole = Keys::Range {
        from: from.clone(),
        below: below.clone(),
    };
    let Some(mut end) = nth(&whole, None, (tables, source), rows).await? else {
        return Ok(whole);
    };
    let lowest = nth(&whole, None, (tables, source), 0).await?;
    if lowest.is_some_and(|(key, _)| key == end.0) {
        let rest = Keys::Range {
            from: Some(end.1.clone()),
            below: below.clone(),
        };
        match nth(&rest, Some(&end.1), (tables, source), 0).await? {
            Some(next) => end = next,
            None => return Ok(whole),
        }
    }
    Ok(Keys::Range {
        from: from.clone(),
        below: Some(end.1),
    })
}

/// The key that so many rows come before, of some keys but one.
async fn nth(
    keys: &Keys,
    but: Option<&Literal>,
    (tables, source): (&[Moving], &mut Server),
    rows: u64,
) -> Result<Option<(Key<'static>, Literal)>, Error> {
    let Some(table) = tables.first() else {
        return Ok(None);
    };
    let but = Keys::Others(but.cloned().into_iter().collect());
    let each: Result<Vec<String>, Error> = tables
        .iter()
        .map(|table| {
            let (key, name) = (&table.key, &table.sql);
            let (keys, but) = (table.of(keys)?, table.of(&but)?);
            Ok(format!(
                "(SELECT {key} FROM {name} WHERE {keys} AND {but} AND {key} IS NOT NULL ORDER BY {key} LIMIT {rows} + 1)"
            ))
        })
        .collect();
    let each = each?.join(" UNION ALL ");
    let ask = format!(
        "SELECT k::pg_catalog.text FROM ({each}) AS part (k) ORDER BY k OFFSET {rows} LIMIT 1"
    );
    let Some(text) = first(source.ask(&ask).await?) else {
        return Ok(None);
    };
    let literal = Literal {
        text,
        form: LiteralForm::String,
    };
    let key = literal.key(table.key_type);
    let key = key.map_err(|error| table.refused(&error.to_string()))?;
    Ok(Some((key, literal)))
}

/// The first of some values that have so many rows together; one at least.
async fn values_of(
    values: &[Literal],
    tables: &[Moving],
    source: &mut Server,
    rows: u64,
) -> Result<Keys, Error> {
    let mut some = Vec::new();
    let mut found = 0;
    for value in values {
        let one = Keys::Values(vec![value.clone()]);
        for table in tables {
            let ask = format!(
                "SELECT count(*) FROM (SELECT FROM {} WHERE {} LIMIT {rows}) AS part",
                table.sql,
                table.of(&one)?
            );
            let row = source.ask(&ask).await?.pop().unwrap_or_default();
            found += source.number::<u64>(&row, 0)?;
        }
        if found > rows && !some.is_empty() {
            break;
        }
        some.push(value.clone());
    }
    Ok(Keys::Values(some))
}

/// Some of the values that are not listed, which are so from then on; the rest, if it has few rows or too many values.
async fn others(
    listed: &[Literal],
    tables: &[Moving],
    source: &mut Server,
    rows: u64,
) -> Result<Keys, Error> {
    let all = Keys::Others(listed.to_vec());
    if listed.len() >= MOST_LISTED {
        return Ok(all);
    }
    let each: Result<Vec<String>, Error> = tables
        .iter()
        .map(|table| {
            let (key, name, keys) = (&table.key, &table.sql, table.of(&all)?);
            Ok(format!(
                "(SELECT {key}, count(*) FROM {name} WHERE {keys} GROUP BY {key} ORDER BY {key} LIMIT {LISTED} + 1)"
            ))
        })
        .collect();
    let each = each?.join(" UNION ALL ");
    let ask = format!(
        "SELECT k::pg_catalog.text, sum(n) FROM ({each}) AS part (k, n) GROUP BY k ORDER BY k LIMIT {LISTED} + 1"
    );
    let found = source.ask(&ask).await?;
    let mut some = Vec::new();
    let mut left = rows;
    let is_all = found.len() <= LISTED;
    for row in found {
        let count: u64 = source.number(&row, 1)?;
        let text = row.into_iter().next().flatten();
        match (left.checked_sub(count), text) {
            // One of them at least; NULL is no value that could be listed, and comes last.
            (rest, Some(text)) if rest.is_some() || some.is_empty() => {
                let form = LiteralForm::String;
                some.push(Literal { text, form });
                left = rest.unwrap_or(0);
            }
            (Some(_), None) => {}
            (None, None) if some.is_empty() => return Ok(all),
            (_, _) => return Ok(Keys::Values(some)),
        }
    }
    match is_all || some.is_empty() {
        true => Ok(all),
        false => Ok(Keys::Values(some)),
    }
}
