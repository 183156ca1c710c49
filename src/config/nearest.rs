//! The known name that is meant by an unknown one.

/// Returns the known name that is nearest to a name, if one is near.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let name = plain(name);
    // A long name is not compared: that takes its length times that of each known name.
    if name.len() > 64 {
        return None;
    }
    let distance = |known: &str| strsim::damerau_levenshtein(&plain(known), &name);
    let (nearest, distance) = known.into_iter().map(|known| (known, distance(known))).min_by_key(|(_, it)| *it)?;
    (distance <= (nearest.chars().count() / 3).max(1)).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        const KNOWN: [&str; 5] = ["memory", "wall_time", "rw", "ro", "profile"];
        for (name, expected) in [
            ("memmory", Some("memory")),
            ("wall-time", Some("wall_time")),
            ("WallTime", Some("wall_time")),
            ("porfile", Some("profile")),
            ("rww", Some("rw")),
            ("hostname", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, KNOWN), expected, "{name}");
        }
        assert_eq!(nearest(&"memory".repeat(1000), KNOWN), None);
    }
}
