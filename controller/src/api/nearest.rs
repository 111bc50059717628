//! What a misspelt word may have meant.

/// The candidates near `word`, nearest first, at most three.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let most = 2 + word.chars().count() / 4;
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .map(|one| (distance(word, one), one))
        .filter(|(far, one)| *far <= most || (!word.is_empty() && one.contains(word)))
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(3).map(|(_, one)| one).collect()
}

/// The hint about [`nearest`]; `otherwise` if none is near.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>, otherwise: &str) -> String {
    let near: Vec<String> = nearest(word, candidates).iter().map(|one| format!("`{one}`")).collect();
    if near.is_empty() { otherwise.to_owned() } else { format!("did you mean {}?", near.join(" or ")) }
}

/// Levenshtein distance of the first 64 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
