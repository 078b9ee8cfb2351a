//! `numeric`, exactly: PostgreSQL's digits and display scale, its sum and its average.
//!
//! Only what combining partial results needs: reading and writing both formats, comparing, adding, and the one division of
//! `avg`. Digits are of base 10,000 as PostgreSQL's are, because the scale of a quotient depends on them
//! (`select_div_scale` in `numeric.c`).

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::MergeError;

/// Decimals in a digit.
const DECIMALS: i32 = 4;
/// What a digit counts to.
const BASE: i32 = 10_000;
/// `NUMERIC_WEIGHT_MAX`: the largest power of the base.
const LARGEST_WEIGHT: i32 = 0x7FFF;
/// `NUMERIC_DSCALE_MAX`
const LARGEST_SCALE: u16 = 0x3FFF;
/// `NUMERIC_MIN_SIG_DIGITS`: what a quotient has at least.
const SIGNIFICANT: i32 = 16;
/// `NUMERIC_MAX_DISPLAY_SCALE`: what a quotient has at most.
const LARGEST_QUOTIENT_SCALE: i32 = 1000;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

type Digits = SmallVec<[u16; 8]>;

/// A value of type `numeric`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decimal {
    /// `-Infinity`
    NegativeInfinity,
    /// A number.
    Finite(Finite),
    /// `Infinity`
    Infinity,
    /// Not a number; equal to itself and larger than anything else.
    NaN,
}

/// A number, with as many decimals after the point as it is shown with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finite {
    negative: bool,
    /// The power of the base of the first digit; 0 if there is none.
    weight: i32,
    /// The first and the last are not zero. No digits: zero, which is not negative.
    digits: Digits,
    scale: u16,
}

impl Decimal {
    /// A whole number.
    pub fn from_int(value: i128) -> Decimal {
        let mut rest = value.unsigned_abs();
        let mut digits = Digits::new();
        while rest > 0 {
            digits.push((rest % BASE as u128) as u16);
            rest /= BASE as u128;
        }
        digits.reverse();
        let weight = digits.len() as i32 - 1;
        Decimal::Finite(Finite::normal(value < 0, weight, digits, 0))
    }

    /// Reads what `numeric_out` wrote.
    pub fn from_text(text: &[u8]) -> Result<Decimal, MergeError> {
        match text {
            b"NaN" => return Ok(Decimal::NaN),
            b"Infinity" => return Ok(Decimal::Infinity),
            b"-Infinity" => return Ok(Decimal::NegativeInfinity),
            _ => {}
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let point = unsigned.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = match point {
            Some(at) => (&unsigned[..at], &unsigned[at + 1..]),
            None => (unsigned, &[][..]),
        };
        let decimals = || whole.iter().chain(fraction);
        let scale = u16::try_from(fraction.len()).unwrap_or(u16::MAX);
        let readable = !whole.is_empty() && decimals().all(u8::is_ascii_digit);
        if !readable || scale > LARGEST_SCALE {
            return Err(MergeError::Unreadable("numeric"));
        }
        let whole_length =
            i32::try_from(whole.len()).map_err(|_| MergeError::Unreadable("numeric"))?;
        // Grouped by four from the point: the first group may be short.
        let weight = (whole_length - 1).div_euclid(DECIMALS);
        let mut filled = DECIMALS - 1 - (whole_length - 1).rem_euclid(DECIMALS);
        let (mut digits, mut digit) = (Digits::new(), 0);
        for decimal in decimals() {
            digit = digit * 10 + u16::from(decimal - b'0');
            filled += 1;
            if filled == DECIMALS {
                digits.push(digit);
                (digit, filled) = (0, 0);
            }
        }
        if filled > 0 {
            digits.push(digit * 10_u16.pow((DECIMALS - filled) as u32));
        }
        Ok(Decimal::Finite(Finite::normal(
            negative, weight, digits, scale,
        )))
    }

    /// Reads what `numeric_send` wrote.
    pub fn from_binary(bytes: &[u8]) -> Result<Decimal, MergeError> {
        let unreadable = Err(MergeError::Unreadable("numeric"));
        let (words, []) = bytes.as_chunks::<2>() else {
            return unreadable;
        };
        let words: SmallVec<[u16; 12]> =
            words.iter().map(|word| u16::from_be_bytes(*word)).collect();
        let [count, weight, sign, scale, digits @ ..] = words.as_slice() else {
            return unreadable;
        };
        let negative = match *sign {
            POSITIVE => false,
            NEGATIVE => true,
            NAN => return Ok(Decimal::NaN),
            INFINITY => return Ok(Decimal::Infinity),
            NEGATIVE_INFINITY => return Ok(Decimal::NegativeInfinity),
            _ => return unreadable,
        };
        let valid = digits.len() == usize::from(*count)
            && *scale <= LARGEST_SCALE
            && digits.iter().all(|digit| i32::from(*digit) < BASE);
        if !valid {
            return unreadable;
        }
        let weight = i32::from(*weight as i16);
        Ok(Decimal::Finite(Finite::normal(
            negative,
            weight,
            Digits::from_slice(digits),
            *scale,
        )))
    }

    /// Appends what `numeric_out` writes.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        match self {
            Decimal::NegativeInfinity => out.extend_from_slice(b"-Infinity"),
            Decimal::Infinity => out.extend_from_slice(b"Infinity"),
            Decimal::NaN => out.extend_from_slice(b"NaN"),
            Decimal::Finite(number) => number.write_text(out),
        }
    }

    /// Appends what `numeric_send` writes.
    pub fn write_binary(&self, out: &mut Vec<u8>) {
        let (sign, number) = match self {
            Decimal::NegativeInfinity => (NEGATIVE_INFINITY, None),
            Decimal::Infinity => (INFINITY, None),
            Decimal::NaN => (NAN, None),
            Decimal::Finite(number) if number.negative => (NEGATIVE, Some(number)),
            Decimal::Finite(number) => (POSITIVE, Some(number)),
        };
        let digits = number.map_or(&[][..], |number| &number.digits);
        let weight = number.map_or(0, |number| number.weight as i16 as u16);
        // PostgreSQL reads the scale of what is no number out of the bits that say what it is.
        let scale = number.map_or(sign >> 7 & 0x3F, |number| number.scale);
        let head = [digits.len() as u16, weight, sign, scale];
        let words = head.iter().chain(digits);
        out.extend(words.flat_map(|word| word.to_be_bytes()));
    }

    /// The sum, with the larger of the two scales. Infinities of both signs make NaN, as does a NaN.
    pub fn add(&self, other: &Decimal) -> Result<Decimal, MergeError> {
        Ok(match (self, other) {
            (Decimal::Finite(a), Decimal::Finite(b)) => {
                let sum = a.add(b);
                if sum.weight > LARGEST_WEIGHT {
                    return Err(MergeError::NumericOverflow);
                }
                Decimal::Finite(sum)
            }
            (Decimal::NaN, _)
            | (_, Decimal::NaN)
            | (Decimal::Infinity, Decimal::NegativeInfinity)
            | (Decimal::NegativeInfinity, Decimal::Infinity) => Decimal::NaN,
            (Decimal::Infinity, _) | (_, Decimal::Infinity) => Decimal::Infinity,
            (Decimal::NegativeInfinity, _) | (_, Decimal::NegativeInfinity) => {
                Decimal::NegativeInfinity
            }
        })
    }

    /// What `avg` makes of a sum and the number of values in it, which is not 0.
    pub fn averaged(&self, count: u64) -> Decimal {
        match self {
            Decimal::Finite(sum) => Decimal::Finite(sum.divided(count.max(1))),
            Decimal::NegativeInfinity | Decimal::Infinity | Decimal::NaN => self.clone(),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Decimal::NegativeInfinity => 0,
            Decimal::Finite(_) => 1,
            Decimal::Infinity => 2,
            Decimal::NaN => 3,
        }
    }

    /// PostgreSQL's order: scales do not matter.
    pub fn compare(&self, other: &Decimal) -> Ordering {
        match (self, other) {
            (Decimal::Finite(a), Decimal::Finite(b)) => match (a.negative, b.negative) {
                (false, false) => a.compare_magnitude(b),
                (true, true) => b.compare_magnitude(a),
                (false, true) => Ordering::Greater,
                (true, false) => Ordering::Less,
            },
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl Finite {
    fn normal(negative: bool, weight: i32, mut digits: Digits, scale: u16) -> Finite {
        let trailing = digits.iter().rev().take_while(|digit| **digit == 0).count();
        digits.truncate(digits.len() - trailing);
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        let zero = digits.is_empty();
        Finite {
            negative: negative && !zero,
            weight: if zero { 0 } else { weight - leading as i32 },
            digits,
            scale,
        }
    }

    /// The digit at a power of the base.
    fn at(&self, power: i32) -> i32 {
        let index = usize::try_from(self.weight - power).ok();
        index
            .and_then(|index| self.digits.get(index))
            .map_or(0, |digit| i32::from(*digit))
    }

    /// The lowest power of the base that has a digit.
    fn last(&self) -> i32 {
        self.weight - self.digits.len() as i32 + 1
    }

    fn compare_magnitude(&self, other: &Finite) -> Ordering {
        // Without leading and trailing zeros, the longer of two equal beginnings is the larger.
        (!self.digits.is_empty())
            .cmp(&!other.digits.is_empty())
            .then(self.weight.cmp(&other.weight))
            .then_with(|| self.digits.cmp(&other.digits))
    }

    fn add(&self, other: &Finite) -> Finite {
        // The larger magnitude first: what is left has its sign.
        let (large, small) = match self.compare_magnitude(other) {
            Ordering::Less => (other, self),
            Ordering::Equal | Ordering::Greater => (self, other),
        };
        let sign = if large.negative == small.negative {
            1
        } else {
            -1
        };
        let (top, bottom) = (
            large.weight.max(small.weight),
            large.last().min(small.last()),
        );
        let mut carry = 0;
        let mut digits = Digits::new();
        for power in bottom..=top {
            let sum = large.at(power) + sign * small.at(power) + carry;
            carry = sum.div_euclid(BASE);
            digits.push(sum.rem_euclid(BASE) as u16);
        }
        digits.push(carry as u16);
        digits.reverse();
        let scale = self.scale.max(other.scale);
        Finite::normal(large.negative, top + 1, digits, scale)
    }

    /// `select_div_scale` for a quotient by a whole number.
    fn quotient_scale(&self, divisor: u64) -> i32 {
        let mut first = divisor;
        let mut weight = 0;
        while first >= BASE as u64 {
            first /= BASE as u64;
            weight += 1;
        }
        let own_first = self.digits.first().map_or(0, |digit| u64::from(*digit));
        let mut quotient_weight = self.weight - weight;
        if own_first <= first {
            quotient_weight -= 1;
        }
        (SIGNIFICANT - quotient_weight * DECIMALS)
            .max(i32::from(self.scale))
            .clamp(0, LARGEST_QUOTIENT_SCALE)
    }

    /// `numeric_div`: long division, one digit further than is kept, and halves away from zero.
    fn divided(&self, divisor: u64) -> Finite {
        let scale = self.quotient_scale(divisor);
        let last = -(scale / DECIMALS) - 1;
        let mut remainder: u128 = 0;
        let mut digits = Digits::new();
        for power in (last..=self.weight.max(0)).rev() {
            remainder = remainder * BASE as u128 + self.at(power) as u128;
            digits.push((remainder / u128::from(divisor)) as u16);
            remainder %= u128::from(divisor);
        }
        round(&mut digits, DECIMALS - scale % DECIMALS);
        let weight = self.weight.max(0) + 1;
        Finite::normal(self.negative, weight, digits, scale as u16)
    }

    fn write_text(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        let push = |out: &mut Vec<u8>, digit: i32, from: usize, to: usize| {
            let decimals = [digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10];
            let decimals = decimals.get(from..to).unwrap_or_default();
            out.extend(decimals.iter().map(|decimal| b'0' + *decimal as u8));
        };
        let top = self.weight.max(0);
        let first = self.at(top);
        let leading = match first {
            1000.. => 0,
            100.. => 1,
            10.. => 2,
            _ => 3,
        };
        push(out, first, leading, 4);
        for power in (0..top).rev() {
            push(out, self.at(power), 0, 4);
        }
        let mut left = usize::from(self.scale);
        if left > 0 {
            out.push(b'.');
        }
        let mut power = -1;
        while left > 0 {
            push(out, self.at(power), 0, left.min(4));
            left -= left.min(4);
            power -= 1;
        }
    }
}

/// Takes so many decimals (1 to 4) off the last digit, rounding halves up, and puts a digit for the carry in front.
fn round(digits: &mut Digits, decimals: i32) {
    let unit = 10_i32.pow(decimals as u32);
    let mut carry = 0;
    if let Some(last) = digits.last_mut() {
        let value = i32::from(*last);
        let up = if value % unit * 2 >= unit { unit } else { 0 };
        let rounded = value - value % unit + up;
        *last = (rounded % BASE) as u16;
        carry = rounded / BASE;
    }
    for digit in digits.iter_mut().rev().skip(1) {
        let sum = i32::from(*digit) + carry;
        *digit = (sum % BASE) as u16;
        carry = sum / BASE;
    }
    digits.insert(0, carry as u16);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Decimal {
        Decimal::from_text(text.as_bytes()).unwrap()
    }

    fn show(value: &Decimal) -> String {
        let mut out = Vec::new();
        value.write_text(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn binary(value: &Decimal) -> Vec<u8> {
        let mut out = Vec::new();
        value.write_binary(&mut out);
        out
    }

    /// `mantissa / 10^scale` as PostgreSQL writes it.
    fn written(mantissa: i128, scale: usize) -> String {
        let digits = format!("{:0>width$}", mantissa.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let sign = if mantissa < 0 { "-" } else { "" };
        match scale {
            0 => format!("{sign}{whole}"),
            _ => format!("{sign}{whole}.{fraction}"),
        }
    }

    #[test]
    fn averages_have_postgresql_s_scale() {
        // As PostgreSQL 15 answers for the sum divided by the count.
        let cases = [
            ("7", 2, "3.5000000000000000"),
            ("10", 4, "2.5000000000000000"),
            ("1", 3, "0.33333333333333333333"),
            ("2", 3, "0.66666666666666666667"),
            ("-2", 3, "-0.66666666666666666667"),
            ("0", 5, "0.00000000000000000000"),
            ("100000", 3, "33333.333333333333"),
            ("23.43", 3, "7.8100000000000000"),
            ("1.50", 1, "1.50000000000000000000"),
            ("0.0001", 3, "0.000033333333333333333333"),
            ("99999999999999999999", 7, "14285714285714285714"),
            (
                "1.00000000000000000000000001",
                3,
                "0.33333333333333333333333334",
            ),
            ("NaN", 3, "NaN"),
            ("-Infinity", 3, "-Infinity"),
        ];
        for (sum, count, average) in cases {
            assert_eq!(show(&read(sum).averaged(count)), average, "{sum} / {count}");
        }
    }

    #[test]
    fn what_is_no_number_is_added_and_ordered_as_postgresql_does() {
        let add = |a: &str, b: &str| show(&read(a).add(&read(b)).unwrap());
        assert_eq!(add("Infinity", "-Infinity"), "NaN");
        assert_eq!(add("Infinity", "-5"), "Infinity");
        assert_eq!(add("-5", "-Infinity"), "-Infinity");
        assert_eq!(add("NaN", "Infinity"), "NaN");
        let ordered = [
            "-Infinity",
            "-1.5",
            "-1",
            "0",
            "0.01",
            "1",
            "12",
            "Infinity",
            "NaN",
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(read(a).compare(&read(b)), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_sum_beyond_the_type_is_an_error() {
        let largest = format!("9{}", "9".repeat(131_071));
        assert_eq!(
            read(&largest).add(&read("1")),
            Err(MergeError::NumericOverflow)
        );
        assert_eq!(show(&read(&largest).add(&read("0")).unwrap()), largest);
    }

    #[test]
    fn what_no_server_writes_is_not_read() {
        for text in ["", "-", ".5", "1e3", "1.2.3", "+1", " 1", "infinity", "1.x"] {
            assert!(Decimal::from_text(text.as_bytes()).is_err(), "{text}");
        }
        for bytes in [
            &[0, 0][..],
            &[0, 1, 0, 0, 0, 0, 0, 0],
            &[0; 7],
            &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10],
        ] {
            assert!(Decimal::from_binary(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn both_formats_keep_value_and_scale(mantissa in any::<i128>(), scale in 0_usize..50) {
            let text = written(mantissa, scale);
            let value = read(&text);
            prop_assert_eq!(show(&value), &*text);
            prop_assert_eq!(Decimal::from_binary(&binary(&value)).unwrap(), value);
        }

        #[test]
        fn sums_and_orders_are_those_of_whole_numbers(
            a in -(1_i128 << 100)..1_i128 << 100,
            b in -(1_i128 << 100)..1_i128 << 100,
            near in -50_i128..50,
            scale in 0_usize..30,
        ) {
            for b in [b, a + near, -a, near] {
                let (x, y) = (read(&written(a, scale)), read(&written(b, scale)));
                prop_assert_eq!(show(&x.add(&y).unwrap()), written(a + b, scale));
                prop_assert_eq!(x.compare(&y), a.cmp(&b));
            }
        }

        #[test]
        fn scales_do_not_change_values(a in any::<i64>(), b in any::<i64>(), more in 0_usize..12) {
            let fine = i128::from(b) * 10_i128.pow(more as u32);
            let (x, y) = (read(&written(a.into(), 2)), read(&written(fine, 2 + more)));
            prop_assert_eq!(x.compare(&y), a.cmp(&b));
            let sum = (i128::from(a) + i128::from(b)) * 10_i128.pow(more as u32);
            prop_assert_eq!(show(&x.add(&y).unwrap()), written(sum, 2 + more));
        }

        #[test]
        fn an_average_is_the_nearest_number_of_its_scale(
            sum in -(1_i128 << 60)..1_i128 << 60,
            scale in 0_usize..4,
            count in 1_u64..1 << 40,
        ) {
            let quotient = read(&written(sum, scale)).averaged(count);
            let Decimal::Finite(number) = &quotient else { panic!() };
            let given = usize::from(number.scale);
            prop_assume!(given - scale <= 18);
            let mantissa: i128 = show(&quotient).replace('.', "").parse().unwrap();
            // |quotient - sum / count| is at most half of the last decimal.
            let scaled = sum * 10_i128.pow((given - scale) as u32);
            let rest = (mantissa * i128::from(count) - scaled).unsigned_abs();
            prop_assert!(rest * 2 <= u128::from(count), "{} / {}", written(sum, scale), count);
            prop_assert!(given >= scale);
        }

        #[test]
        fn whole_numbers_are_read_as_they_are_written(value in any::<i128>()) {
            prop_assert_eq!(Decimal::from_int(value), read(&value.to_string()));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Decimal::from_text(&bytes);
            if let Ok(value) = Decimal::from_binary(&bytes) {
                show(&value.averaged(3));
            }
        }
    }
}
