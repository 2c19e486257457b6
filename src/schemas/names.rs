//! Names of ConfigMaps: stable, so that pods can mount them, and never the same for two toolkits.

use crate::digest::sha256_hex;

/// Longest name of a ConfigMap.
const MAX_NAME: usize = 253;
/// Room that is kept for the number of a continuation.
const PART_SUFFIX: usize = 5;
/// The word that the manifest's own name ends with.
const MANIFEST: &str = "manifest";

/// Name of the manifest's ConfigMap.
pub fn manifest(prefix: &str) -> String {
    format!("{prefix}-{MANIFEST}")
}

/// Name of a toolkit's ConfigMap: `<prefix>-<toolkit>`, where each `_` of the slug is a `-`.
///
/// Slugs of Composio consist of lower-case letters, digits and `_`, so that this keeps different slugs apart. Any other
/// slug gets a part of its hash behind a dot, which the plain form never contains.
pub fn toolkit(prefix: &str, slug: &str) -> String {
    let is_plain = slug
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && slug.ends_with(|c: char| c.is_ascii_alphanumeric())
        && prefix.len() + 1 + slug.len() + PART_SUFFIX <= MAX_NAME
        && slug != MANIFEST;
    if is_plain {
        return format!("{prefix}-{}", slug.replace('_', "-"));
    }
    let readable: String = slug
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => c,
            _ => '-',
        })
        .take(64)
        .collect();
    let readable = readable.trim_matches('-');
    let hash = sha256_hex([slug.as_bytes()]);
    format!(
        "{prefix}-{}.h{}",
        if readable.is_empty() { "x" } else { readable },
        &hash[..10]
    )
}

/// Name of a toolkit's `index`-th ConfigMap; the 0th has the toolkit's own name, the others a number from 2.
pub fn part(toolkit: &str, index: usize) -> String {
    match index {
        0 => toolkit.to_owned(),
        _ => format!("{toolkit}.{}", index + 1),
    }
}

/// A label value for the slug: label values begin and end with a letter or digit.
pub fn label(slug: &str) -> String {
    let short: String = slug
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    short
        .trim_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_slugs_give_names_that_can_be_guessed() {
        assert_eq!(toolkit("schemas", "github"), "schemas-github");
        assert_eq!(toolkit("schemas", "text_to_pdf"), "schemas-text-to-pdf");
        assert_eq!(toolkit("schemas", "_21risk"), "schemas--21risk");
        assert_eq!(part("schemas-github", 0), "schemas-github");
        assert_eq!(part("schemas-github", 1), "schemas-github.2");
        assert_eq!(manifest("schemas"), "schemas-manifest");
    }

    #[test]
    fn slugs_that_look_alike_and_the_manifest_keep_apart() {
        let slugs = [
            "a_b", "a-b", "A_B", "a__b", "a_b_", "_a_b", "a.b", "a b", "manifest", "MANIFEST", "",
        ];
        let mut names: HashSet<String> = slugs.iter().map(|slug| toolkit("p", slug)).collect();
        names.insert(manifest("p"));
        assert_eq!(names.len(), slugs.len() + 1, "{names:?}");
    }

    proptest! {
        #[test]
        fn names_are_valid_and_differ(one in "\\PC{0,300}", other in "\\PC{0,300}", index in 0_usize..99) {
            let name = part(&toolkit("schemas", &one), index);
            prop_assert!(name.len() <= MAX_NAME);
            for label in name.split('.') {
                prop_assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{}", name);
                prop_assert!(label.starts_with(|c: char| c.is_ascii_alphanumeric()), "{}", name);
                prop_assert!(label.ends_with(|c: char| c.is_ascii_alphanumeric()), "{}", name);
            }
            if one != other {
                prop_assert_ne!(toolkit("schemas", &one), toolkit("schemas", &other));
            }
        }
    }
}
