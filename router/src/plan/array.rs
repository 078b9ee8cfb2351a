//! PostgreSQL's arrays, as far as `key = ANY (array)` needs them: the elements, in text and binary form.

use std::borrow::Cow;

use switchyard_schema::KeyType;

/// The element type of an array type, if its elements can be keys.
pub(super) fn element_type(array_oid: u32) -> Option<KeyType> {
    Some(match array_oid {
        1000 => KeyType::Bool,
        1001 => KeyType::Bytea,
        1005 => KeyType::Int2,
        1007 => KeyType::Int4,
        1009 => KeyType::Text,
        1014 => KeyType::Bpchar,
        1015 => KeyType::Varchar,
        1016 => KeyType::Int8,
        1115 => KeyType::Timestamp,
        1182 => KeyType::Date,
        1185 => KeyType::Timestamptz,
        1231 => KeyType::Numeric,
        2951 => KeyType::Uuid,
        _ => return None,
    })
}

/// The elements of an array in text form, NULL as `None`. `None` if the form is not the plain one.
pub(super) fn text_elements(text: &[u8]) -> Option<Vec<Option<Cow<'static, [u8]>>>> {
    let text = text.trim_ascii();
    let inside = text.strip_prefix(b"{")?.strip_suffix(b"}")?.trim_ascii();
    let mut elements = Vec::new();
    let mut rest = inside;
    while !rest.is_empty() {
        let (element, after) = element(rest)?;
        elements.push(element);
        rest = match after.trim_ascii_start() {
            [b',', next @ ..] => {
                let next = next.trim_ascii_start();
                if next.is_empty() {
                    return None;
                }
                next
            }
            [] => &[],
            _ => return None,
        };
    }
    Some(elements)
}

type Element<'a> = (Option<Cow<'static, [u8]>>, &'a [u8]);

fn element(text: &[u8]) -> Option<Element<'_>> {
    let mut value = Vec::new();
    if let Some(mut rest) = text.strip_prefix(b"\"") {
        loop {
            match rest {
                [b'"', after @ ..] => return Some((Some(Cow::Owned(value)), after)),
                [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                    value.push(*byte);
                    rest = after;
                }
                [] => return None,
            }
        }
    }
    let end = text
        .iter()
        .position(|byte| *byte == b',')
        .unwrap_or(text.len());
    let (plain, after) = text.split_at(end);
    let plain = plain.trim_ascii_end();
    // Nested braces, quotes in the middle and escapes outside quotes: not the plain form.
    if plain.is_empty()
        || plain
            .iter()
            .any(|byte| matches!(byte, b'{' | b'}' | b'"' | b'\\'))
    {
        return None;
    }
    if plain.eq_ignore_ascii_case(b"null") {
        return Some((None, after));
    }
    Some((Some(Cow::Owned(plain.to_vec())), after))
}

/// The elements of an array in binary form, NULL as `None`.
pub(super) fn binary_elements(bytes: &[u8], of: KeyType) -> Option<Vec<Option<&[u8]>>> {
    let (dimensions, rest) = word(bytes)?;
    let (_has_null, rest) = word(rest)?;
    let (oid, mut rest) = word(rest)?;
    if oid as u32 != of.oid() || !(0..=6).contains(&dimensions) {
        return None;
    }
    let mut count: usize = usize::from(dimensions > 0);
    for _ in 0..dimensions {
        let (length, after) = word(rest)?;
        let (_lower, after) = word(after)?;
        count = count.checked_mul(usize::try_from(length).ok()?)?;
        rest = after;
    }
    // Every element takes four bytes at least: never allocate more than was sent.
    if count > rest.len() / 4 {
        return None;
    }
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, after) = word(rest)?;
        if length == -1 {
            elements.push(None);
            rest = after;
            continue;
        }
        let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        elements.push(Some(value));
        rest = after;
    }
    rest.is_empty().then_some(elements)
}

fn word(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*word), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(array: &str) -> Option<Vec<Option<String>>> {
        let elements = text_elements(array.as_bytes())?;
        Some(
            elements
                .into_iter()
                .map(|e| e.map(|e| String::from_utf8_lossy(&e).into_owned()))
                .collect(),
        )
    }

    #[test]
    fn reads_the_plain_text_form() {
        let some = |values: &[&str]| {
            Some(
                values
                    .iter()
                    .map(|v| Some((*v).to_owned()))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(text("{}"), some(&[]));
        assert_eq!(text(" { 1 , 2,3 } "), some(&["1", "2", "3"]));
        assert_eq!(text(r#"{"a,b","c\"d",e f}"#), some(&["a,b", "c\"d", "e f"]));
        assert_eq!(
            text("{NULL,null,\"NULL\"}"),
            Some(vec![None, None, Some("NULL".to_owned())])
        );
        for odd in [
            "",
            "{",
            "{1,}",
            "{,1}",
            "{{1},{2}}",
            "[1:2]={1,2}",
            r"{a\b}",
            r#"{"a}"#,
            r#"{a"b"}"#,
        ] {
            assert_eq!(text(odd), None, "{odd}");
        }
    }

    #[test]
    fn reads_the_binary_form_and_trusts_no_length() {
        let array = |words: &[i32]| {
            words
                .iter()
                .flat_map(|w| w.to_be_bytes())
                .collect::<Vec<u8>>()
        };
        let two = array(&[1, 0, 23, 2, 1, 4, 7, -1]);
        assert_eq!(
            binary_elements(&two, KeyType::Int4),
            Some(vec![Some(&[0, 0, 0, 7][..]), None])
        );
        assert_eq!(
            binary_elements(&array(&[0, 0, 23]), KeyType::Int4),
            Some(vec![])
        );
        assert_eq!(
            binary_elements(&array(&[1, 0, 20, 2, 1, 4, 7, -1]), KeyType::Int4),
            None
        );
        assert_eq!(
            binary_elements(&array(&[1, 0, 23, i32::MAX, 1]), KeyType::Int4),
            None
        );
        assert_eq!(
            binary_elements(&array(&[1, 0, 23, 1, 1, 400, 7]), KeyType::Int4),
            None
        );
        assert_eq!(binary_elements(&[1, 2], KeyType::Int4), None);
    }
}
