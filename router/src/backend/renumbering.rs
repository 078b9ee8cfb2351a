//! Descriptions that arrive from a node, given the first shard's numbers before anybody looks at them.

use std::sync::Arc;

use switchyard_wire::frame::header;

use crate::relations::OidMap;

/// How far what has arrived on a connection has been looked at.
#[derive(Debug)]
pub(super) struct Renumbering {
    pub(super) map: Arc<OidMap>,
    /// So many bytes at the end of the input have not been looked at: the start of a message.
    behind: usize,
    /// Of a message that is not changed, so many bytes are still to come.
    body_left: usize,
}

impl Renumbering {
    /// Of a connection on which the next byte begins a message.
    pub(super) fn new(map: &Arc<OidMap>) -> Self {
        Self {
            map: Arc::clone(map),
            behind: 0,
            body_left: 0,
        }
    }

    /// Looks at `input`, of which so many bytes have just arrived. What has been looked at before may have been taken from its
    /// start meanwhile; a description is not taken before it is whole.
    pub(super) fn arrived(&mut self, input: &mut [u8], count: usize) {
        let end = input.len();
        let mut at = end.saturating_sub(count + self.behind);
        let skipped = self.body_left.min(end - at);
        self.body_left -= skipped;
        at += skipped;
        while let Some(rest) = input.get_mut(at..)
            && let Ok(Some(header)) = header(rest)
        {
            match rest.get_mut(..header.len) {
                Some(message) => self.map.renumber_description(message),
                None if matches!(header.tag, b'T' | b't') => break,
                None => self.body_left = header.len - rest.len(),
            }
            at = end.min(at + header.len);
        }
        self.behind = end - at;
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, BytesMut};
    use proptest::prelude::*;
    use switchyard_schema::ShardIndex;
    use switchyard_wire::Format;
    use switchyard_wire::backend::{Column, encode};

    use super::Renumbering;
    use crate::relations::{Oids, TypeName, UserType};

    /// Types that the second shard numbers by one more than the first.
    fn renumbering() -> Renumbering {
        let types = |more: u32| {
            let made = |at: u32| UserType {
                oid: 20_000 + 2 * at + more,
                name: TypeName {
                    qualified: format!("public.t{at}").into(),
                    is_array: false,
                },
                relation: 30_000 + 2 * at + more,
            };
            (0..3).map(made).collect::<Vec<_>>()
        };
        let (first, second) = (types(0), types(1));
        let oids = Oids::new(&[Some(&first), Some(&second)]);
        assert!(oids.of(ShardIndex::FIRST).is_none());
        Renumbering::new(oids.of(ShardIndex(1)).unwrap())
    }

    fn reply(more: u32) -> BytesMut {
        let column = |name, at: u32| Column {
            table: 30_000 + 2 * at + more,
            attribute: 1,
            type_modifier: -1,
            format: Format::Text,
            ..Column::new(name, 20_000 + 2 * at + more, 4)
        };
        let mut out = BytesMut::new();
        encode::parameter_description(&mut out, &[23, 20_000 + more, 20_004 + more]);
        encode::row_description(
            &mut out,
            &[column(b"a", 0), Column::new(b"b", 25, -1), column(b"c", 2)],
        );
        for length in [0, 1, 40] {
            // Values that look like what is renumbered.
            let value = [
                &b"T\0\0\0\x20"[..],
                &20_001_u32.to_be_bytes().repeat(length),
            ]
            .concat();
            encode::data_row(&mut out, &[Some(&value[..])]);
        }
        encode::command_complete(&mut out, b"SELECT 3");
        encode::row_description(&mut out, &[column(b"again", 1)]);
        out
    }

    proptest! {
        #[test]
        fn descriptions_are_renumbered_once_however_they_arrive(sizes in prop::collection::vec(1..90_usize, 1..60)) {
            let mut renumbering = renumbering();
            let (sent, expected) = (reply(1), reply(0));
            let (mut input, mut taken) = (BytesMut::new(), Vec::new());
            let mut rest = &sent[..];
            for size in sizes.iter().cycle() {
                let count = (*size).min(rest.len());
                input.extend_from_slice(&rest[..count]);
                rest.advance(count);
                renumbering.arrived(&mut input, count);
                // Somebody takes what is whole, and of rows all there is.
                while let Ok(Some(header)) = switchyard_wire::frame::header(&input) {
                    if header.len > input.len() {
                        break;
                    }
                    taken.extend_from_slice(&input.split_to(header.len));
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(&taken[..], &expected[..]);
        }

        #[test]
        fn whatever_arrives_is_survived(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12)) {
            let mut renumbering = renumbering();
            let mut input = BytesMut::new();
            for chunk in chunks {
                input.extend_from_slice(&chunk);
                renumbering.arrived(&mut input, chunk.len());
                let mut message = chunk.clone();
                renumbering.map.renumber_bind(&mut message, |number| 20_000 + u32::from(number));
                prop_assert_eq!(message.len(), chunk.len());
            }
        }
    }
}
