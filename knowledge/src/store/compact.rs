//! Which segments are put together, so that a channel of a million messages has dozens of files and not thousands.

use super::commit::Segment;

/// From this size before compression on a segment stays as it is. Eight just below it make one of 32 MiB.
const LARGE: u64 = 4 * 1024 * 1024;
/// How many segments of about one size become one.
const MANY: usize = 8;

/// The largest segment, in bytes before compression.
pub(crate) const MOST: u64 = LARGE * MANY as u64;

/// The sizes that count as about the same: up to 64 KiB, 512 KiB, 4 MiB.
fn tier(segment: &Segment) -> Option<u32> {
    match segment.raw_bytes {
        0..=0xFFFF => Some(0),
        0x1_0000..=0x7_FFFF => Some(1),
        0x8_0000..LARGE => Some(2),
        _ => None,
    }
}

/// The places of the segments to put together: the largest tier that is full, with everything smaller.
pub(super) fn due(segments: &[Segment]) -> Vec<usize> {
    let in_tier = |wanted: u32| {
        segments
            .iter()
            .filter(|segment| tier(segment) == Some(wanted))
            .count()
    };
    let Some(full) = (0..=2).rev().find(|wanted| in_tier(*wanted) >= MANY) else {
        return Vec::new();
    };
    let small = |(place, segment)| tier(segment).is_some_and(|tier| tier <= full).then_some(place);
    segments.iter().enumerate().filter_map(small).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::store::FileRef;

    fn segment(raw_bytes: u64) -> Segment {
        let file = FileRef {
            path: String::new(),
            rows: 1,
            bytes: 1,
            sha256: String::new(),
        };
        Segment {
            file,
            raw_bytes,
            from: Timestamp::UNIX_EPOCH,
            until: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_million_small_pages_stay_dozens_of_segments() {
        let mut segments = Vec::new();
        let mut rewritten = 0;
        let page = 40 * 1024;
        for _ in 0..10_000 {
            segments.push(segment(page));
            let due = due(&segments);
            let together: u64 = due.iter().map(|place| segments[*place].raw_bytes).sum();
            rewritten += together;
            let mut place = 0;
            segments.retain(|_| {
                place += 1;
                !due.contains(&(place - 1))
            });
            if together > 0 {
                assert!(together <= MOST + 2 * LARGE, "{together}");
                segments.push(segment(together));
            }
        }
        assert!(segments.len() < 130, "{}", segments.len());
        assert!(
            rewritten < 5 * 10_000 * page,
            "each byte is rewritten a few times: {rewritten}"
        );
    }
}
