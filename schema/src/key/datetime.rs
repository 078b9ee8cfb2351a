//! Text forms of date, timestamp and timestamptz whose meaning depends on no setting and no clock.
//!
//! That is ISO 8601 with the year first: `2026-01-31`, `2026-01-31 12:30:00.5`, `2026-01-31T12:30:00+02`, perhaps with ` BC`,
//! and the infinities. PostgreSQL reads far more (`31/1/2026`, `now`, `yesterday`), all of it [`KeyError::NotExact`] here.

use super::KeyError;

/// 2000-01-01, PostgreSQL's epoch, in days since 1970-01-01.
const EPOCH_DAYS: i64 = 10_957;
const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// The first and the last day of `date`: 4714-11-24 BC and 5874897-12-31.
const DAYS: std::ops::RangeInclusive<i32> = -2_451_545..=2_145_031_948;
/// `MIN_TIMESTAMP..END_TIMESTAMP`: 4714-11-24 BC to the end of 294276.
const MICROS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// Days since 2000-01-01, if `date` can hold them.
pub(super) fn checked_days(days: i32) -> Result<i32, KeyError> {
    if DAYS.contains(&days) || days == i32::MIN || days == i32::MAX {
        Ok(days)
    } else {
        Err(KeyError::Invalid)
    }
}

/// Microseconds since 2000-01-01, if `timestamp` can hold them.
pub(super) fn checked_micros(micros: i64) -> Result<i64, KeyError> {
    if MICROS.contains(&micros) || micros == i64::MIN || micros == i64::MAX {
        Ok(micros)
    } else {
        Err(KeyError::Invalid)
    }
}

/// `date_in`. A time zone after the date has no meaning to it and is accepted, since pgjdbc sends one.
pub(super) fn date(value: &[u8]) -> Result<i32, KeyError> {
    if let Some(late) = infinity(value) {
        return Ok(if late { i32::MAX } else { i32::MIN });
    }
    let (value, before_christ) = era(value);
    let mut rest = value;
    let day = Day::read(&mut rest, before_christ)?;
    if let [b' ', zone @ ..] = rest {
        rest = zone;
        offset_seconds(&mut rest)?;
    }
    end(rest)?;
    i32::try_from(day.number()?)
        .map_err(|_| KeyError::Invalid)
        .and_then(checked_days)
}

/// `timestamp_in`. It ignores a time zone ("silently", says the manual, 8.5.1.3), and so does this.
pub(super) fn timestamp(value: &[u8]) -> Result<i64, KeyError> {
    if let Some(late) = infinity(value) {
        return Ok(if late { i64::MAX } else { i64::MIN });
    }
    let (mut rest, before_christ) = era(value);
    let day = Day::read(&mut rest, before_christ)?;
    let mut micros = 0;
    if !rest.is_empty() {
        micros = time_of_day(&mut rest)?;
        if !rest.is_empty() {
            offset_seconds(&mut rest)?;
        }
    }
    end(rest)?;
    instant(day.number()?, micros, 0)
}

/// `timestamptz_in`, for values with an explicit offset from UTC; without one the session's time zone would decide.
pub(super) fn timestamptz(value: &[u8]) -> Result<i64, KeyError> {
    if let Some(late) = infinity(value) {
        return Ok(if late { i64::MAX } else { i64::MIN });
    }
    let (mut rest, before_christ) = era(value);
    let day = Day::read(&mut rest, before_christ)?;
    let micros = time_of_day(&mut rest)?;
    let offset = offset_seconds(&mut rest)?;
    end(rest)?;
    instant(day.number()?, micros, offset)
}

fn instant(days: i64, micros: i64, offset_seconds: i64) -> Result<i64, KeyError> {
    days.checked_mul(MICROS_PER_DAY)
        .and_then(|day| day.checked_add(micros))
        .and_then(|local| local.checked_sub(offset_seconds * MICROS_PER_SECOND))
        .filter(|micros| MICROS.contains(micros))
        .ok_or(KeyError::Invalid)
}

/// Whether the value is `infinity` (true) or `-infinity` (false).
fn infinity(value: &[u8]) -> Option<bool> {
    if value.eq_ignore_ascii_case(b"infinity") {
        Some(true)
    } else if value.eq_ignore_ascii_case(b"-infinity") {
        Some(false)
    } else {
        None
    }
}

/// Takes ` BC` off the end.
fn era(value: &[u8]) -> (&[u8], bool) {
    match value.strip_suffix(b" BC") {
        Some(value) => (value, true),
        None => (value, false),
    }
}

/// A day as written; whether there is such a day is asked when the rest of the value has been understood.
struct Day {
    /// In astronomers' count: 1 BC is 0. `None` is the year 0 as written, which there never was.
    year: Option<i64>,
    month: i64,
    day: i64,
}

impl Day {
    /// `YYYY-MM-DD`, the year with four digits or more.
    fn read(rest: &mut &[u8], before_christ: bool) -> Result<Day, KeyError> {
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(4..=7).contains(&digits) {
            return Err(KeyError::NotExact);
        }
        let year = number(rest, digits)?;
        separator(rest, b'-')?;
        let month = number(rest, 2)?;
        separator(rest, b'-')?;
        let day = number(rest, 2)?;
        if rest.first().is_some_and(u8::is_ascii_digit) {
            return Err(KeyError::NotExact);
        }
        let counted = if before_christ { 1 - year } else { year };
        Ok(Day {
            year: (year != 0).then_some(counted),
            month,
            day,
        })
    }

    /// Days since 2000-01-01.
    fn number(&self) -> Result<i64, KeyError> {
        let year = self.year.ok_or(KeyError::Invalid)?;
        let days = 1..=month_days(year, self.month);
        if !(1..=12).contains(&self.month) || !days.contains(&self.day) {
            return Err(KeyError::Invalid);
        }
        Ok(days_from_civil(year, self.month, self.day) - EPOCH_DAYS)
    }
}

fn month_days(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. The year begins in March, so that the leap day is its last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

/// A blank or `T`, then `HH:MM[:SS[.ffffff]]`, as microseconds. 24:00 and a leap second, which PostgreSQL rolls over, are not
/// accepted, nor more than six decimals, which it rounds.
fn time_of_day(rest: &mut &[u8]) -> Result<i64, KeyError> {
    match rest {
        [b' ' | b'T', after @ ..] => *rest = after,
        _ => return Err(KeyError::NotExact),
    }
    let hour = number(rest, 2)?;
    separator(rest, b':')?;
    let minute = number(rest, 2)?;
    let mut second = 0;
    let mut fraction = 0;
    if let [b':', after @ ..] = rest {
        *rest = after;
        second = number(rest, 2)?;
        if let [b'.', after @ ..] = rest {
            *rest = after;
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            if !(1..=6).contains(&digits) {
                return Err(KeyError::NotExact);
            }
            fraction = number(rest, digits)? * 10_i64.pow(6 - digits as u32);
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(KeyError::NotExact);
    }
    Ok(((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + fraction)
}

/// `Z`, `±HH`, `±HH:MM` or `±HH:MM:SS`: seconds east of UTC.
fn offset_seconds(rest: &mut &[u8]) -> Result<i64, KeyError> {
    let east = match rest {
        [b'Z', after @ ..] => {
            *rest = after;
            return Ok(0);
        }
        [b'+', after @ ..] => {
            *rest = after;
            true
        }
        [b'-', after @ ..] => {
            *rest = after;
            false
        }
        _ => return Err(KeyError::NotExact),
    };
    let mut seconds = number(rest, 2)? * 3600;
    for unit in [60, 1] {
        if let [b':', after @ ..] = rest {
            *rest = after;
            let part = number(rest, 2)?;
            if part > 59 {
                return Err(KeyError::NotExact);
            }
            seconds += part * unit;
        }
    }
    // PostgreSQL takes offsets of less than 16 hours.
    if seconds >= 16 * 3600 {
        return Err(KeyError::NotExact);
    }
    Ok(if east { seconds } else { -seconds })
}

/// Exactly so many digits.
fn number(rest: &mut &[u8], digits: usize) -> Result<i64, KeyError> {
    let Some((number, after)) = rest.split_at_checked(digits) else {
        return Err(KeyError::NotExact);
    };
    if !number.iter().all(u8::is_ascii_digit) {
        return Err(KeyError::NotExact);
    }
    *rest = after;
    Ok(number
        .iter()
        .fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
}

fn separator(rest: &mut &[u8], byte: u8) -> Result<(), KeyError> {
    match rest.split_first() {
        Some((first, after)) if *first == byte => {
            *rest = after;
            Ok(())
        }
        _ => Err(KeyError::NotExact),
    }
}

fn end(rest: &[u8]) -> Result<(), KeyError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(KeyError::NotExact)
    }
}
