//! Changes to the client's text, of which everything else stays as it is.

use std::ops::Range;

/// Places in a text, in bytes, and what stands there instead; in the text's order.
#[derive(Debug, Clone, Default)]
pub(super) struct Edits(Vec<(Range<usize>, Vec<u8>)>);

impl Edits {
    /// Of places in any order. One that begins inside another goes with it.
    pub(super) fn new(mut edits: Vec<(Range<usize>, Vec<u8>)>) -> Self {
        edits.sort_by_key(|(place, _)| place.start);
        let mut end = 0;
        edits.retain(|(place, _)| {
            let outside = place.start >= end;
            end = end.max(place.end);
            outside
        });
        Self(edits)
    }

    /// The changed text.
    pub(super) fn apply(&self, text: &[u8]) -> Vec<u8> {
        let added: usize = self.0.iter().map(|(_, instead)| instead.len()).sum();
        let mut changed = Vec::with_capacity(text.len() + added);
        let mut copied = 0;
        for (place, instead) in &self.0 {
            changed.extend_from_slice(text.get(copied..place.start).unwrap_or_default());
            changed.extend_from_slice(instead);
            copied = place.end;
        }
        changed.extend_from_slice(text.get(copied..).unwrap_or_default());
        changed
    }

    /// Where a part of the text is in the changed one. Of what is in one of the places, what begins with it is all that stands there
    /// instead, and the rest is nothing behind it.
    pub(super) fn moved(&self, part: Range<usize>) -> Range<usize> {
        let (mut removed, mut added) = (0, 0);
        for (place, instead) in &self.0 {
            if place.end > part.start {
                if place.start > part.start {
                    break;
                }
                let start = place.start + added - removed;
                let end = start + instead.len();
                return match place.start == part.start {
                    true => start..end,
                    false => end..end,
                };
            }
            removed += place.len();
            added += instead.len();
        }
        part.start + added - removed..part.end + added - removed
    }

    /// Where in the text a character of the changed one comes from, both counted from 1; `None` if it is ours.
    pub(super) fn origin(&self, text: &[u8], position: usize) -> Option<usize> {
        let mut left = position.checked_sub(1)?;
        let mut copied = 0;
        for (place, instead) in &self.0 {
            let kept = characters(text.get(copied..place.start)?);
            if left < kept {
                break;
            }
            left = (left - kept).checked_sub(characters(instead))?;
            copied = place.end;
        }
        Some(characters(text.get(..copied)?) + left + 1)
    }
}

/// The characters of a text in UTF-8.
pub(super) fn characters(text: &[u8]) -> usize {
    text.iter().filter(|byte| (**byte as i8) >= -0x40).count()
}

#[cfg(test)]
mod tests {
    use super::Edits;

    #[test]
    fn texts_change_in_places_that_can_be_found_again() {
        let edits = Edits::new(vec![
            (7..8, b"xyz".to_vec()),
            (0..0, b"W ".to_vec()),
            // Inside the next one.
            (4..5, b"lost".to_vec()),
            (2..6, Vec::new()),
        ]);
        let text = "äbcdefgh".as_bytes();
        let changed = edits.apply(text);
        assert_eq!(changed, "W äfxyzh".as_bytes());
        let origins: Vec<_> = (1..=8).map(|at| edits.origin(text, at)).collect();
        let expected = [None, None, Some(1), Some(6), None, None, None, Some(8)];
        assert_eq!(origins, expected);
    }
}
