//! Compares a segment with the bytes around a place where its anchor was found.
//!
//! Where a segment has jumps, it may fit in several ways: the places reached are kept as a set, which
//! is never larger than what the jumps span, so no pattern takes more than its length times its span.

use crate::filter::scan::signature::{Anchor, Node, Segment};

/// Where a segment may begin and end, as places in the window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fits {
    /// First bytes.
    pub starts: Vec<usize>,
    /// One behind the last bytes.
    pub ends: Vec<usize>,
}

/// Compares a segment with a window in which its anchor's first byte is at `at`.
pub fn fits(segment: &Segment, anchor: Anchor, fold: bool, window: &[u8], at: usize) -> Option<Fits> {
    let node = usize::from(anchor.node);
    let Some(Node::Bytes(bytes)) = segment.nodes.get(node) else { return None };
    let first = at.checked_sub(usize::from(anchor.offset))?;
    let end = first + bytes.len();
    if !same(window.get(first..end)?, bytes, fold) {
        return None;
    }
    let mut ends = vec![end];
    for node in segment.nodes.get(node + 1..)? {
        ends = forward(node, &ends, window, fold);
        if ends.is_empty() {
            return None;
        }
    }
    let mut starts = vec![first];
    for node in segment.nodes.get(..node)?.iter().rev() {
        starts = backward(node, &starts, window, fold);
        if starts.is_empty() {
            return None;
        }
    }
    Some(Fits { starts, ends })
}

fn same(window: &[u8], bytes: &[u8], fold: bool) -> bool {
    if fold { window.eq_ignore_ascii_case(bytes) } else { window == bytes }
}

/// Tells whether masked bytes are there; a letter is the same in both cases where case does not count.
fn fit(window: &[u8], option: &[(u8, u8)], fold: bool) -> bool {
    window.iter().zip(option).all(|(&byte, &(value, mask))| {
        byte & mask == value || (fold && mask == 0xFF && byte.eq_ignore_ascii_case(&value))
    })
}

fn forward(node: &Node, from: &[usize], window: &[u8], fold: bool) -> Vec<usize> {
    let mut reached: Vec<usize> = Vec::with_capacity(from.len());
    match node {
        Node::Bytes(bytes) => reached.extend(from.iter().filter_map(|&at| {
            let end = at + bytes.len();
            same(window.get(at..end)?, bytes, fold).then_some(end)
        })),
        Node::Masked { value, mask } => reached.extend(
            from.iter().filter_map(|&at| fit(window.get(at..=at)?, &[(*value, *mask)], fold).then_some(at + 1)),
        ),
        Node::Gap { min, max } => {
            let mut next = 0;
            for &at in from {
                let (least, most) = (at + usize::from(*min), (at + usize::from(*max)).min(window.len()));
                reached.extend(least.max(next)..=most);
                next = next.max(most + 1);
            }
        }
        Node::Choice { not, options } => {
            for &at in from {
                let there = |option: &Vec<(u8, u8)>| {
                    let end = at + option.len();
                    window.get(at..end).is_some_and(|bytes| fit(bytes, option, fold)).then_some(end)
                };
                if *not {
                    let length = options.first().map_or(0, Vec::len);
                    let free = at + length <= window.len() && options.iter().all(|option| there(option).is_none());
                    reached.extend(free.then_some(at + length));
                } else {
                    reached.extend(options.iter().filter_map(there));
                }
            }
            reached.sort_unstable();
            reached.dedup();
        }
    }
    reached
}

fn backward(node: &Node, from: &[usize], window: &[u8], fold: bool) -> Vec<usize> {
    let mut reached: Vec<usize> = Vec::with_capacity(from.len());
    match node {
        Node::Bytes(bytes) => reached.extend(from.iter().filter_map(|&at| {
            let start = at.checked_sub(bytes.len())?;
            same(window.get(start..at)?, bytes, fold).then_some(start)
        })),
        Node::Masked { value, mask } => reached.extend(from.iter().filter_map(|&at| {
            let start = at.checked_sub(1)?;
            fit(window.get(start..at)?, &[(*value, *mask)], fold).then_some(start)
        })),
        Node::Gap { min, max } => {
            let mut next = 0;
            for &at in from {
                let Some(most) = at.checked_sub(usize::from(*min)) else { continue };
                let least = at.saturating_sub(usize::from(*max)).max(next);
                reached.extend(least..=most);
                next = next.max(most + 1);
            }
        }
        Node::Choice { not, options } => {
            for &at in from {
                let there = |option: &Vec<(u8, u8)>| {
                    let start = at.checked_sub(option.len())?;
                    fit(window.get(start..at)?, option, fold).then_some(start)
                };
                if *not {
                    let start = at.checked_sub(options.first().map_or(0, Vec::len));
                    let free = options.iter().all(|option| there(option).is_none());
                    reached.extend(start.filter(|_| free));
                } else {
                    reached.extend(options.iter().filter_map(there));
                }
            }
            reached.sort_unstable();
            reached.dedup();
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::scan::signature::Body;

    fn found(pattern: &str, window: &[u8]) -> Option<(Vec<usize>, Vec<usize>)> {
        let body = Body::parse(pattern).unwrap();
        let segment = &body.segments[0];
        let anchor = segment.anchor().unwrap();
        let bytes = segment.anchored(anchor);
        let at = window.windows(bytes.len()).position(|window| window == bytes)?;
        fits(segment, anchor, body.fold, window, at).map(|fits| (fits.starts, fits.ends))
    }

    #[test]
    fn wildcards_jumps_and_alternatives_fit_where_they_should() {
        assert_eq!(found("4142??44", b"xABcD"), Some((vec![1], vec![5])));
        assert_eq!(found("41424?44", b"xABcD"), None);
        assert_eq!(found("41426?44", b"xABcD"), Some((vec![1], vec![5])));
        assert_eq!(found("4142{1-3}5a", b"ABxZZZ"), Some((vec![0], vec![4, 5, 6])));
        assert_eq!(found("5a{-3}4142", b"ZZxAB"), Some((vec![0, 1], vec![5])));
        assert_eq!(found("4142(43|4444)45", b"ABDDE"), Some((vec![0], vec![5])));
        assert_eq!(found("4142(43|4444)45", b"ABDE"), None);
        assert_eq!(found("4142!(43|44)45", b"ABxE"), Some((vec![0], vec![4])));
        assert_eq!(found("4142!(43|44)45", b"ABCE"), None);
        assert_eq!(found("!(30)4142", b"0AB"), None);
        assert_eq!(found("!(30)4142", b"1AB"), Some((vec![0], vec![3])));
        assert_eq!(found("!(30)4142", b"AB"), None);
    }

    #[test]
    fn a_pattern_of_jumps_alone_ends() {
        let window = vec![b'A'; 40_000];
        let body = Body::parse("4141{0-16000}41{0-16000}4141").unwrap();
        let segment = &body.segments[0];
        let anchor = segment.anchor().unwrap();
        assert!(fits(segment, anchor, false, &window, 0).is_some());
    }
}
