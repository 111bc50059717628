//! What a misspelt word may have meant.

/// The candidate nearest to `word`, if any is near: a slip of the fingers, not another word.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = 1 + word.chars().count().min(16) / 4;
    let far = candidates.into_iter().map(|one| (distance(word, one), one)).filter(|(far, _)| *far <= most);
    far.min().map(|(_, one)| one)
}

/// Edits between two words of 64 characters at most, a swap of neighbours counted once.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let edited = (rows[i - 1][j - 1] + same).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped { edited.min(rows[i - 2][j - 2] + 1) } else { edited }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_understood_and_other_words_are_not() {
        let stages = ["preflight", "convert", "train"];
        let table = [("trian", Some("train")), ("Train", Some("train")), ("preflght", Some("preflight"))];
        for (word, meant) in table {
            assert_eq!(nearest(word, stages), meant, "{word}");
        }
        for word in ["", "export", "x"] {
            assert_eq!(nearest(word, stages), None, "{word}");
        }
    }
}
