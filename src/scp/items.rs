//! The items of association PDUs (PS3.8 9.3.2): type, reserved byte, length, contents.

/// One item or sub-item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item<'b> {
    pub(super) kind: u8,
    pub(super) contents: &'b [u8],
    /// Header and contents.
    pub(super) whole: &'b [u8],
}

/// All items of a field; a last `None` where a length runs past the end.
pub(super) fn items(mut bytes: &[u8]) -> impl Iterator<Item = Option<Item<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let split = split_item(bytes);
        bytes = split.map_or(&[], |(_, rest)| rest);
        Some(split.map(|(item, _)| item))
    })
}

fn split_item(bytes: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let &[kind, _, length_high, length_low] = bytes.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let (whole, rest) = bytes.split_at_checked(4 + length)?;
    let contents = whole.get(4..)?;
    let item = Item {
        kind,
        contents,
        whole,
    };
    Some((item, rest))
}

/// Splits a field off that has its length in two bytes before it.
pub(super) fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_split_until_one_does_not_fit() {
        let bytes = [0x10, 9, 0, 2, 7, 8, 0x99, 0, 0, 0, 0x20, 0, 0, 3, 1, 2];
        let found: Vec<_> = items(&bytes).collect();
        let kinds: Vec<_> = found
            .iter()
            .map(|item| item.map(|item| item.kind))
            .collect();
        assert_eq!(kinds, [Some(0x10), Some(0x99), None]);
        assert_eq!(
            found
                .first()
                .and_then(|item| item.map(|item| item.contents)),
            Some(&[7, 8][..])
        );
        assert_eq!(counted(&[0, 1, 5, 6]), Some((&[5][..], &[6][..])));
        assert_eq!(counted(&[0, 3, 5, 6]), None);
        assert_eq!(counted(&[0]), None);
    }
}
