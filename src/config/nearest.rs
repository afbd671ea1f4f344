//! The known name nearest to one that nobody knows, for "did you mean".
//!
//! Called for unknown keys and environment variables. It proposes nothing rather than something far: a wrong proposal costs
//! the reader more than none.

/// The nearest of `known`; a key that only stands in the wrong section (`cluster.idle_timeout`) is near, too.
pub(super) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near_enough = (unknown.chars().count() / 3).clamp(1, 4);
    let with_distance = known.map(|name| {
        let same_last_part = last_part(name) == last_part(unknown);
        let distance = distance(unknown, name);
        let distance = if same_last_part {
            distance.min(near_enough)
        } else {
            distance
        };
        (distance, name)
    });
    let (distance, name) = with_distance.min()?;
    (distance <= near_enough).then_some(name)
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Levenshtein's: insertions, deletions and replacements of one character.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let check = |unknown: &str, wanted: Option<&str>| {
            let known = ["pool.size", "pool.idle_timeout", "cache.bytes", "nodes"];
            assert_eq!(nearest(unknown, known.into_iter()), wanted, "{unknown}");
        };
        check("pool.sise", Some("pool.size"));
        check("cach.bytes", Some("cache.bytes"));
        check("cluster.idle_timeout", Some("pool.idle_timeout"));
        check("node", Some("nodes"));
        check("weather", None);
    }

    #[test]
    fn the_distance_is_levenshteins() {
        for (a, b, wanted) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("size", "size", 0),
            ("sze", "size", 1),
        ] {
            assert_eq!(distance(a, b), wanted);
            assert_eq!(distance(b, a), wanted);
        }
    }
}
