//! Rows in COPY's formats, parted among the shards by the bucket that is their first column.

/// What begins COPY's binary format: the signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What ends it.
const TRAILER: &[u8] = &[0xff, 0xff];

/// Parts text: one COPY input per shard.
pub(super) fn split_text(
    copied: &[u8],
    shards: usize,
    owner: &dyn Fn(u16) -> usize,
) -> Result<Vec<Vec<u8>>, String> {
    let mut parts = vec![Vec::new(); shards];
    for line in copied.split_inclusive(|byte| *byte == b'\n') {
        let end = line
            .iter()
            .position(|byte| matches!(byte, b'\t' | b'\n'))
            .unwrap_or(line.len());
        let (bucket, rest) = line.split_at(end);
        let bucket = std::str::from_utf8(bucket)
            .ok()
            .and_then(|text| text.parse().ok());
        let bucket = bucket.ok_or_else(|| format!("no bucket in {line:?}"))?;
        parts[owner(bucket)].extend_from_slice(rest.strip_prefix(b"\t").unwrap_or(rest));
    }
    Ok(parts)
}

/// Parts the binary format.
pub(super) fn split_binary(
    copied: &[u8],
    shards: usize,
    owner: &dyn Fn(u16) -> usize,
) -> Result<Vec<Vec<u8>>, String> {
    let broken = || "rows in an unknown form".to_owned();
    let mut parts = vec![HEADER.to_vec(); shards];
    let mut rest = copied.strip_prefix(HEADER).ok_or_else(broken)?;
    while rest != TRAILER {
        let (count, after) = rest.split_first_chunk::<2>().ok_or_else(broken)?;
        // The bucket is an int4: its length, then four bytes.
        let (_, after) = after.split_first_chunk::<4>().ok_or_else(broken)?;
        let (bucket, mut after) = after.split_first_chunk::<4>().ok_or_else(broken)?;
        let count = i16::from_be_bytes(*count) - 1;
        let fields = after;
        for _ in 0..count {
            let (length, value) = after.split_first_chunk::<4>().ok_or_else(broken)?;
            // The length of NULL is -1, and nothing follows.
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            after = value.get(length..).ok_or_else(broken)?;
        }
        let bucket = u16::try_from(i32::from_be_bytes(*bucket)).map_err(|_| broken())?;
        let part = &mut parts[owner(bucket)];
        part.extend_from_slice(&count.to_be_bytes());
        part.extend_from_slice(&fields[..fields.len() - after.len()]);
        rest = after;
    }
    parts
        .iter_mut()
        .for_each(|part| part.extend_from_slice(TRAILER));
    Ok(parts)
}

/// All parts of a text, one after the other.
pub(super) fn join_text(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

/// All parts in the binary format, one after the other.
pub(super) fn join_binary(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = HEADER.to_vec();
    for part in parts {
        let rows = HEADER.len()..part.len() - TRAILER.len();
        whole.extend_from_slice(&part[rows]);
    }
    whole.extend_from_slice(TRAILER);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for row in rows {
            bytes.extend_from_slice(&i16::try_from(row.len()).unwrap().to_be_bytes());
            for value in *row {
                let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(value.unwrap_or_default());
            }
        }
        bytes.extend_from_slice(TRAILER);
        bytes
    }

    #[test]
    fn each_row_goes_to_the_owner_of_its_bucket() {
        let owner = |bucket: u16| usize::from(bucket % 2);
        let parts = split_text(b"4\ta\\tb\t\\N\n5\tc\td\n7\te\tf\n", 2, &owner).unwrap();
        assert_eq!(parts, [b"a\\tb\t\\N\n".to_vec(), b"c\td\ne\tf\n".to_vec()]);

        let (four, five): ([u8; 4], [u8; 4]) = ([0, 0, 0, 4], [0, 0, 0, 5]);
        let rows = binary(&[
            &[Some(&four), Some(b"abc"), None],
            &[Some(&five), None, Some(b"")],
        ]);
        let parts = split_binary(&rows, 2, &owner).unwrap();
        assert_eq!(parts[0], binary(&[&[Some(b"abc"), None]]));
        assert_eq!(parts[1], binary(&[&[None, Some(b"")]]));
        let whole = binary(&[&[Some(b"abc"), None], &[None, Some(b"")]]);
        assert_eq!(join_binary(&parts), whole);
    }

    #[test]
    fn rows_without_columns_have_a_bucket_only() {
        let zero = [0; 4];
        assert_eq!(
            split_binary(&binary(&[&[Some(&zero)]]), 1, &|_| 0).unwrap(),
            [binary(&[&[]])]
        );
        assert_eq!(split_text(b"0\n", 1, &|_| 0).unwrap(), [b"\n".to_vec()]);
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let whole = binary(&[&[Some(&[0; 4]), Some(b"abc")]]);
        assert!(split_binary(&whole[..whole.len() - 3], 1, &|_| 0).is_err());
    }
}
