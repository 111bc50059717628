//! An argument list by flags, so that a flag goes together with its values.

/// Words of a command line, grouped: a flag and what follows until the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments(Vec<Vec<String>>);

impl Arguments {
    /// Groups words. A word that begins with `--` starts a group.
    pub(crate) fn parse(words: &[String]) -> Self {
        let mut list = Self::default();
        for word in words {
            if word.starts_with("--") || list.0.is_empty() {
                list.0.push(vec![word.clone()]);
            } else if let Some(group) = list.0.last_mut() {
                group.push(word.clone());
            }
        }
        list
    }

    /// Appends a flag without a value.
    pub(crate) fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(vec![flag.to_owned()]);
        self
    }

    /// Appends a flag if a condition holds.
    pub(crate) fn flag_if(&mut self, condition: bool, flag: &str) -> &mut Self {
        if condition {
            self.flag(flag);
        }
        self
    }

    /// Appends a flag and its value.
    pub(crate) fn value(&mut self, flag: &str, value: impl ToString) -> &mut Self {
        self.0.push(vec![flag.to_owned(), value.to_string()]);
        self
    }

    /// Appends words as they are.
    pub(crate) fn extend(&mut self, words: &[String]) {
        self.0.extend(Self::parse(words).0);
    }

    /// Whether a flag is given, alone or as `flag=value`.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|group| is(group, flag))
    }

    /// The value that counts: of equal flags the last one's.
    pub(crate) fn get(&self, flag: &str) -> Option<&str> {
        let group = self.0.iter().rev().find(|group| is(group, flag))?;
        match group[0].split_once('=') {
            Some((_, value)) => Some(value),
            None => group.get(1).map(String::as_str),
        }
    }

    /// Takes a flag out with its values; true if it was there.
    pub(crate) fn remove(&mut self, flag: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|group| !is(group, flag));
        self.0.len() < before
    }

    /// Gives a flag one value, in the place of its first occurrence or at the end.
    pub(crate) fn set(&mut self, flag: &str, value: &str) {
        let at = self.0.iter().position(|group| is(group, flag));
        self.remove(flag);
        let group = vec![flag.to_owned(), value.to_owned()];
        match at {
            Some(at) => self.0.insert(at, group),
            None => self.0.push(group),
        }
    }

    pub(crate) fn into_words(self) -> Vec<String> {
        self.0.into_iter().flatten().collect()
    }
}

fn is(group: &[String], flag: &str) -> bool {
    let word = group[0].as_str();
    word == flag || word.split_once('=').is_some_and(|(name, _)| name == flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Arguments {
        Arguments::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_flag_goes_with_its_values() {
        let mut a = list("script.py --a 1 -2 --b --c=3 --a 4");
        assert_eq!((a.get("--a"), a.get("--c"), a.get("--b")), (Some("4"), Some("3"), None));
        assert!(a.has("--b") && a.has("--c") && !a.has("--d"));
        a.set("--c", "5");
        assert!(a.remove("--a") && !a.remove("--z"));
        a.set("--new", "x");
        assert_eq!(a.into_words().join(" "), "script.py --b --c 5 --new x");
    }
}
