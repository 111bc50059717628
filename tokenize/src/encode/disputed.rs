//! Characters that the two encoders know from different Unicode versions.
//!
//! The reference normalises by Unicode 9 and classifies by Unicode 16, the fast
//! encoder does both by Unicode 17; and only the reference counts U+017F, the
//! long s, as the s of a contraction. On every other character the two agree.

/// Inclusive, sorted ranges: new combining marks, parts and results of new
/// compositions, new compatibility forms, new letters and digits, the long s.
#[rustfmt::skip]
const RANGES: &[(u32, u32)] = &[
    (0x17f, 0x17f), (0x7fd, 0x7fd), (0x88f, 0x88f), (0x897, 0x89f), (0x8ca, 0x8d3), (0x9fe, 0x9fe), (0xc3c, 0xc3c),
    (0xc5c, 0xc5c), (0xcdc, 0xcdc), (0xd3b, 0xd3c), (0xeba, 0xeba), (0x1715, 0x1715), (0x1abf, 0x1add),
    (0x1ae0, 0x1aeb), (0x1df6, 0x1dfa), (0x32ff, 0x32ff), (0xa7ce, 0xa7cf), (0xa7d2, 0xa7d2), (0xa7d4, 0xa7d4),
    (0xa7f1, 0xa7f4), (0xa82c, 0xa82c), (0xab69, 0xab69), (0x105c9, 0x105c9), (0x105d2, 0x105d2), (0x105da, 0x105da),
    (0x105e4, 0x105e4), (0x10781, 0x10785), (0x10787, 0x107b0), (0x107b2, 0x107ba), (0x10940, 0x10959),
    (0x10d24, 0x10d27), (0x10d69, 0x10d6d), (0x10eab, 0x10eac), (0x10ec5, 0x10ec7), (0x10efa, 0x10efb),
    (0x10efd, 0x10eff), (0x10f46, 0x10f50), (0x10f82, 0x10f85), (0x11070, 0x11070), (0x1133b, 0x1133b),
    (0x11382, 0x11385), (0x1138b, 0x1138b), (0x1138e, 0x1138e), (0x11390, 0x11391), (0x113b8, 0x113b8),
    (0x113bb, 0x113bb), (0x113c2, 0x113c2), (0x113c5, 0x113c5), (0x113c7, 0x113c9), (0x113ce, 0x113d0),
    (0x1145e, 0x1145e), (0x11839, 0x1183a), (0x11930, 0x11930), (0x11935, 0x11935), (0x11938, 0x11938),
    (0x1193d, 0x1193e), (0x11943, 0x11943), (0x119e0, 0x119e0), (0x11a34, 0x11a34), (0x11a47, 0x11a47),
    (0x11a99, 0x11a99), (0x11d42, 0x11d42), (0x11d44, 0x11d45), (0x11d97, 0x11d97), (0x11db0, 0x11ddb),
    (0x11de0, 0x11de9), (0x11f41, 0x11f42), (0x1611e, 0x16129), (0x1612f, 0x1612f), (0x16d63, 0x16d63),
    (0x16d67, 0x16d6a), (0x16ea0, 0x16eb8), (0x16ebb, 0x16ed3), (0x16ff0, 0x16ff6), (0x187f8, 0x187ff),
    (0x18d09, 0x18d1e), (0x18d80, 0x18df2), (0x1ccd6, 0x1ccf9), (0x1e030, 0x1e06d), (0x1e08f, 0x1e08f),
    (0x1e130, 0x1e136), (0x1e2ae, 0x1e2ae), (0x1e2ec, 0x1e2ef), (0x1e4ec, 0x1e4ef), (0x1e5ee, 0x1e5ef),
    (0x1e6c0, 0x1e6de), (0x1e6e0, 0x1e6f5), (0x1e6fe, 0x1e6ff), (0x1f16c, 0x1f16c), (0x1fbf0, 0x1fbf9),
    (0x2b73a, 0x2b73f), (0x2cea2, 0x2cead), (0x323b0, 0x33479),
];

/// Code points of one page.
const PAGE: u32 = 64;

/// Pages that hold a disputed character.
static PAGES: [bool; 0x33480 / PAGE as usize] = pages();
/// First bytes of the UTF-8 forms of disputed characters.
static LEADS: [bool; 256] = leads();
const LEAD_LIST: [u8; count(&leads())] = list(&leads());

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// Whether `text` holds a disputed character.
pub(super) fn is_disputed(text: &str) -> bool {
    if text.is_ascii() {
        return false;
    }
    // Most blocks have none: that takes a few instructions for all of a block.
    let blocks = text.as_bytes().chunks(BLOCK).zip((0..).step_by(BLOCK));
    blocks.filter(|(block, _)| !block.is_ascii() && may_lead(block)).any(|(block, begin)| {
        let leads = (begin..).zip(block).filter(|(_, byte)| LEADS[usize::from(**byte)]);
        leads.map(|(at, _)| &text[at..]).filter_map(|rest| rest.chars().next()).any(is_disputed_char)
    })
}

/// Whether any of these is a first byte of a disputed character; without a branch or a look-up for each.
fn may_lead(block: &[u8]) -> bool {
    block.iter().fold(false, |any, &byte| LEAD_LIST.iter().fold(any, |any, &lead| any | (byte == lead)))
}

fn is_disputed_char(character: char) -> bool {
    let code = u32::from(character);
    let page = PAGES.get((code / PAGE) as usize).copied().unwrap_or(false);
    page && RANGES
        .binary_search_by(|&(first, last)| {
            if code < first {
                std::cmp::Ordering::Greater
            } else if code > last {
                std::cmp::Ordering::Less
            } else {
                std::cmp::Ordering::Equal
            }
        })
        .is_ok()
}

const fn pages() -> [bool; 0x33480 / PAGE as usize] {
    let mut pages = [false; 0x33480 / PAGE as usize];
    let mut at = 0;
    while at < RANGES.len() {
        let mut page = RANGES[at].0 / PAGE;
        while page <= RANGES[at].1 / PAGE {
            pages[page as usize] = true;
            page += 1;
        }
        at += 1;
    }
    pages
}

const fn leads() -> [bool; 256] {
    let mut leads = [false; 256];
    let mut at = 0;
    while at < RANGES.len() {
        let mut byte = lead(RANGES[at].0);
        while byte <= lead(RANGES[at].1) {
            leads[byte] = true;
            byte += 1;
        }
        at += 1;
    }
    leads
}

const fn count(leads: &[bool; 256]) -> usize {
    let (mut count, mut byte) = (0, 0);
    while byte < leads.len() {
        count += leads[byte] as usize;
        byte += 1;
    }
    count
}

const fn list<const COUNT: usize>(leads: &[bool; 256]) -> [u8; COUNT] {
    let mut list = [0; COUNT];
    let (mut at, mut byte) = (0, 0_u8);
    while at < COUNT {
        if leads[byte as usize] {
            list[at] = byte;
            at += 1;
        }
        byte = byte.wrapping_add(1);
    }
    list
}

/// The first byte of the UTF-8 form; nothing disputed is ASCII.
const fn lead(code: u32) -> usize {
    if code < 0x800 {
        (0xc0 | (code >> 6)) as usize
    } else if code < 0x1_0000 {
        (0xe0 | (code >> 12)) as usize
    } else {
        (0xf0 | (code >> 18)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::{RANGES, is_disputed};

    #[test]
    fn exactly_the_listed_characters_are_disputed() {
        assert!(RANGES.windows(2).all(|pair| pair[0].1 < pair[1].0), "sorted");
        for character in '\0'..=char::MAX {
            let code = u32::from(character);
            let listed = RANGES.iter().any(|&(first, last)| (first..=last).contains(&code));
            assert_eq!(is_disputed(&format!("a{character}b")), listed, "{code:x}");
            if listed {
                let far = format!("{}{character}中", "。a".repeat(code as usize % 90));
                assert!(is_disputed(&far), "{code:x}");
            }
        }
    }
}
