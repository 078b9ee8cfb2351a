//! `numeric` without its scale: 1.0 and 1.00 are one value, as PostgreSQL's `=` has it.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::KeyError;
use super::text::{newer_form, trim};
use crate::hash;

/// Longer texts and larger exponents are not read: no key has them, and PostgreSQL's own limits are not far.
const LONGEST_TEXT: usize = 4096;
const LARGEST_EXPONENT: i32 = 4096;

/// A numeric value, in the one form that equal values share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numeric(Value);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    NegativeInfinity,
    Finite {
        negative: bool,
        /// The power of 10,000 of the first digit; 0 if there is none.
        weight: i32,
        /// Digits of base 10,000, the first and the last not zero. No digits: zero, which is not negative.
        digits: SmallVec<[i16; 8]>,
    },
    Infinity,
    NaN,
}

impl Numeric {
    /// `numeric_in`.
    pub(super) fn from_text(value: &[u8]) -> Result<Self, KeyError> {
        let value = trim(value);
        if value.len() > LONGEST_TEXT {
            return Err(KeyError::NotExact);
        }
        let (negative, unsigned) = match value {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, value),
        };
        let named = |name: &[u8]| unsigned.eq_ignore_ascii_case(name);
        if named(b"infinity") || named(b"inf") {
            return Ok(Self(if negative {
                Value::NegativeInfinity
            } else {
                Value::Infinity
            }));
        }
        if value.eq_ignore_ascii_case(b"nan") {
            return Ok(Self(Value::NaN));
        }
        let (mantissa, exponent) = match unsigned.iter().position(|b| matches!(b, b'e' | b'E')) {
            // Hexadecimal digits of a newer form may be an `e`.
            Some(_) if newer_form(unsigned) == KeyError::NotExact => {
                return Err(KeyError::NotExact);
            }
            Some(at) => (&unsigned[..at], exponent(&unsigned[at + 1..])?),
            None => (unsigned, 0),
        };
        let point = mantissa.iter().position(|b| *b == b'.');
        let (whole, fraction) = match point {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &[][..]),
        };
        let decimals = || whole.iter().chain(fraction);
        if !decimals().all(u8::is_ascii_digit) {
            return Err(newer_form(unsigned));
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(KeyError::Invalid);
        }
        let point = whole.len() as i32 + exponent;
        Ok(Self::from_decimals(negative, decimals().copied(), point))
    }

    /// The value `0.d₁d₂d₃… × 10^point`.
    fn from_decimals(negative: bool, decimals: impl Iterator<Item = u8>, point: i32) -> Self {
        let power = point - 1;
        let weight = power.div_euclid(4);
        let mut digits: SmallVec<[i16; 8]> = SmallVec::new();
        let mut digit = 0;
        // The first decimal may stand anywhere in its group of four.
        let mut filled = 3 - power.rem_euclid(4);
        for decimal in decimals {
            digit = digit * 10 + i16::from(decimal - b'0');
            filled += 1;
            if filled == 4 {
                digits.push(digit);
                (digit, filled) = (0, 0);
            }
        }
        if filled > 0 {
            digits.push(digit * 10_i16.pow(4 - filled as u32));
        }
        Self::normal(negative, weight, &digits)
    }

    /// `numeric_recv`.
    pub(super) fn from_binary(value: &[u8]) -> Result<Self, KeyError> {
        let words: SmallVec<[u16; 16]> = value
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect();
        let [count, weight, sign, scale, digits @ ..] = words.as_slice() else {
            return Err(KeyError::Invalid);
        };
        if !value.len().is_multiple_of(2) || digits.len() != usize::from(*count) {
            return Err(KeyError::Invalid);
        }
        let negative = match *sign {
            0x0000 => false,
            0x4000 => true,
            0xC000 => return Ok(Self(Value::NaN)),
            0xD000 => return Ok(Self(Value::Infinity)),
            0xF000 => return Ok(Self(Value::NegativeInfinity)),
            _ => return Err(KeyError::Invalid),
        };
        if *scale > 0x3FFF || digits.iter().any(|d| *d > 9999) {
            return Err(KeyError::Invalid);
        }
        let weight = i32::from(*weight as i16);
        let digits: SmallVec<[i16; 8]> = digits.iter().map(|d| *d as i16).collect();
        if hides_digits(&digits, weight, i32::from(*scale)) {
            return Err(KeyError::NotExact);
        }
        Ok(Self::normal(negative, weight, &digits))
    }

    fn normal(negative: bool, weight: i32, digits: &[i16]) -> Self {
        let leading = digits.iter().take_while(|d| **d == 0).count();
        let significant = &digits[leading..];
        let trailing = significant.iter().rev().take_while(|d| **d == 0).count();
        let significant = &significant[..significant.len() - trailing];
        let zero = significant.is_empty();
        Self(Value::Finite {
            negative: negative && !zero,
            weight: if zero { 0 } else { weight - leading as i32 },
            digits: SmallVec::from_slice(significant),
        })
    }

    /// `hash_numeric_extended`. The sign is not part of it, and the special values hash to the seed.
    pub(super) fn hash_with(&self, seed: u64) -> u64 {
        match &self.0 {
            Value::NegativeInfinity | Value::Infinity | Value::NaN => seed,
            Value::Finite { digits, .. } if digits.is_empty() => seed.wrapping_sub(1),
            Value::Finite { weight, digits, .. } => {
                let bytes: SmallVec<[u8; 32]> =
                    digits.iter().flat_map(|d| d.to_le_bytes()).collect();
                hash::bytes(&bytes, seed) ^ i64::from(*weight) as u64
            }
        }
    }

    /// Whether this is NaN.
    pub(super) fn is_nan(&self) -> bool {
        self.0 == Value::NaN
    }

    /// The value with so many decimals after the point, halves away from zero; as it is if it is no number.
    pub(super) fn rounded(self, scale: i32) -> Self {
        let Value::Finite {
            negative,
            weight,
            digits,
        } = &self.0
        else {
            return self;
        };
        let mut decimals: SmallVec<[u8; 32]> = digits
            .iter()
            .flat_map(|digit| [1000, 100, 10, 1].map(|unit| b'0' + (digit / unit % 10) as u8))
            .collect();
        let mut point = 4 * (weight + 1);
        let Ok(kept) = usize::try_from(point + scale) else {
            return Self::normal(false, 0, &[]);
        };
        if kept >= decimals.len() {
            return self;
        }
        let up = decimals[kept] >= b'5';
        decimals.truncate(kept);
        if up {
            let nines = decimals.iter().rev().take_while(|d| **d == b'9').count();
            decimals[kept - nines..].fill(b'0');
            match kept.checked_sub(nines + 1) {
                Some(at) => decimals[at] += 1,
                None => {
                    decimals.insert(0, b'1');
                    point += 1;
                }
            }
        }
        Self::from_decimals(*negative, decimals.into_iter(), point)
    }

    /// How many decimals before the point the value needs; `None` for infinities and NaN.
    pub(super) fn whole_decimals(&self) -> Option<i32> {
        match &self.0 {
            Value::NegativeInfinity | Value::Infinity | Value::NaN => None,
            Value::Finite { weight, digits, .. } => {
                let first = digits.first().map_or(0, |d| d.ilog10() as i32 + 1);
                Some((4 * weight + first).max(0))
            }
        }
    }

    fn rank(&self) -> u8 {
        match &self.0 {
            Value::NegativeInfinity => 0,
            Value::Finite { .. } => 1,
            Value::Infinity => 2,
            Value::NaN => 3,
        }
    }
}

impl Ord for Numeric {
    fn cmp(&self, other: &Self) -> Ordering {
        let (
            Value::Finite {
                negative,
                weight,
                digits,
            },
            Value::Finite {
                negative: other_negative,
                weight: other_weight,
                digits: other_digits,
            },
        ) = (&self.0, &other.0)
        else {
            return self.rank().cmp(&other.rank());
        };
        // Without leading and trailing zeros, the longer of two equal beginnings is the larger magnitude.
        let magnitude = (!digits.is_empty())
            .cmp(&!other_digits.is_empty())
            .then(weight.cmp(other_weight))
            .then_with(|| digits.cmp(other_digits));
        match (negative, other_negative) {
            (false, false) => magnitude,
            (true, true) => magnitude.reverse(),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The digits after `e`. Older versions allow blanks here, newer ones underscores; what is not plain is not certain.
fn exponent(text: &[u8]) -> Result<i32, KeyError> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(KeyError::NotExact);
    }
    let magnitude = digits.iter().fold(0_i32, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(i32::from(digit - b'0'))
    });
    if magnitude > LARGEST_EXPONENT {
        return Err(KeyError::NotExact);
    }
    Ok(if negative { -magnitude } else { magnitude })
}

/// Whether a display scale cuts off decimals that are not zero: PostgreSQL truncates such a value on arrival.
fn hides_digits(digits: &[i16], weight: i32, scale: i32) -> bool {
    digits.iter().zip(0..).any(|(digit, index)| {
        // How many of this digit's four decimals lie beyond the scale.
        let beyond = -scale - 4 * (weight - index);
        match beyond {
            ..=0 => false,
            1..=3 => digit % 10_i16.pow(beyond as u32) != 0,
            _ => *digit != 0,
        }
    })
}
