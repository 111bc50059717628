//! The nearest valid spelling of a mistyped word.

/// Longest word that is compared; longer ones are no typing errors.
const LONGEST: usize = 64;

/// Returns the candidate nearest to `word`, if it is near enough to be meant.
///
/// Near enough is at most a third of the word's letters changed (at least one),
/// or one of the two being the beginning of the other.
pub(crate) fn nearest<'a, I>(word: &str, candidates: I) -> Option<&'a str>
where
    I: IntoIterator<Item = &'a str>,
{
    if word.is_empty() || word.chars().count() > LONGEST {
        return None;
    }
    let plain = fold(word);
    let allowed = (plain.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let other = fold(candidate);
            let near = distance(&plain, &other);
            let prefix = plain.len() >= 3 && (other.starts_with(&plain) || plain.starts_with(&other));
            (near <= allowed || prefix).then_some((near, candidate))
        })
        .min_by_key(|(near, _)| *near)
        .map(|(_, candidate)| candidate)
}

/// Returns the edit distance of two words: insert, delete, replace, swap neighbours.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Hyphens, underscores and case are not what a user means to distinguish.
fn fold(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits_and_swaps() {
        for (a, b, want) in
            [("", "", 0), ("", "ab", 2), ("tp", "pt", 1), ("train", "trian", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), want, "{a} {b}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let keys = ["seq_length", "save_dir", "tp", "workers"];
        assert_eq!(nearest("seq-length", keys), Some("seq_length"));
        assert_eq!(nearest("seqlength", keys), Some("seq_length"));
        assert_eq!(nearest("save", keys), Some("save_dir"));
        assert_eq!(nearest("tpp", keys), Some("tp"));
        assert_eq!(nearest("banana", keys), None);
        assert_eq!(nearest(&"x".repeat(65), keys), None);
    }
}
