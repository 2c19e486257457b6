//! The documentation keeps up: links lead somewhere, and reasons and settings are all explained.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read files and clocks"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails by panicking, as the test does"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use composio_operator::api::Reason;
use composio_operator::settings::Settings;
use strum::VariantArray;
use syn::visit::{self, Visit};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Markdown file, but for build output and hidden folders.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            pages(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The text outside code blocks and code spans.
fn prose(page: &str) -> String {
    let mut in_block = false;
    let mut prose = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            let outside_spans = line.split('`').step_by(2);
            prose.extend(outside_spans.chain(["\n"]));
        }
    }
    prose
}

/// Where inline links and images lead.
fn links(page: &str) -> Vec<String> {
    let targets = prose(page);
    let targets = targets
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.trim().to_owned()).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let headings = page.lines().filter(|line| {
        in_block ^= line.trim_start().starts_with("```");
        !in_block && line.starts_with('#')
    });
    headings
        .map(|heading| {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            text.chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// Links of the page at `path` that lead nowhere. Other sites are not asked.
fn dead_links(path: &Path, page: &str) -> Vec<String> {
    let mut dead = links(page);
    dead.retain(|target| {
        if target.contains("://") || target.starts_with("mailto:") {
            return false;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        if file.is_empty() {
            return !anchors(page).contains(anchor);
        }
        let file = path.parent().unwrap().join(file);
        let leads = file.exists()
            && (anchor.is_empty() || anchors(&std::fs::read_to_string(file).unwrap()).contains(anchor));
        !leads
    });
    dead
}

#[test]
fn links_lead_somewhere() {
    let mut found = Vec::new();
    pages(root(), &mut found);
    assert!(
        found.contains(&root().join("README.md")) && found.contains(&root().join("docs/architecture.md"))
    );
    let mut dead = Vec::new();
    for path in found {
        let page = std::fs::read_to_string(&path).unwrap();
        let here = path.strip_prefix(root()).unwrap().display();
        dead.extend(
            dead_links(&path, &page)
                .iter()
                .map(|target| format!("{here}: {target}")),
        );
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn dead_links_are_noticed() {
    let page = "# One, two\n[a](#one-two) [`b`](README.md) [c](gone.md) [d](#three) [e](https://x.y/z)\n\
                `[f](code.md)`\n```\n# not a heading\n[g](block.md)\n```\n[h](README.md#no-such) [i](#not-a-heading)\n";
    assert_eq!(
        dead_links(&root().join("page.md"), page),
        ["gone.md", "#three", "README.md#no-such", "#not-a-heading"]
    );
}

/// String literals in `PascalCase`, outside tests and macros.
#[derive(Default)]
struct Reasons(BTreeSet<String>);

impl<'ast> Visit<'ast> for Reasons {
    fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
        let text = literal.value();
        let is_pascal_case = text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.chars().all(|c| c.is_ascii_alphabetic())
            && text.chars().any(|c| c.is_ascii_lowercase());
        if is_pascal_case {
            self.0.insert(text);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }
}

/// What these files call a reason, and other words of that shape.
fn words_of(files: &[&str]) -> BTreeSet<String> {
    let mut reasons = Reasons::default();
    for file in files {
        reasons.visit_file(&syn::parse_file(&read(file)).unwrap());
    }
    reasons.0
}

/// The reasons that a table of a page explains. The table begins with `header`.
fn explained(page: &str, header: &str) -> BTreeSet<String> {
    let page_text = read(page);
    let (_, table) = page_text
        .split_once(header)
        .unwrap_or_else(|| panic!("{page} has no table {header}"));
    let rows = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|row| row.split('|').nth(1));
    rows.flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn none(words: impl Iterator<Item = String>, what: &str) {
    let words: Vec<_> = words.collect();
    assert!(words.is_empty(), "{what}: {words:?}");
}

#[test]
fn every_reason_is_explained_and_no_other() {
    let failures: BTreeSet<String> = Reason::VARIANTS.iter().map(ToString::to_string).collect();
    // The runtime's own phases, Deleting and Suspended among them, are the same for all.
    let lifecycle = words_of(&["src/runtime/summary.rs"]);
    let phases = words_of(&["src/controllers/reddit_connection/phase.rs"]);
    let syncs = words_of(&["src/controllers/schema_cache/status/mod.rs"]);
    for (one, among) in [
        ("AwaitingConsent", &phases),
        ("CredentialRejected", &phases),
        ("Syncing", &syncs),
    ] {
        assert!(among.contains(one), "{one} is not found in the source");
    }
    let connections = explained("docs/reddit-connection.md", "| reason | what to do |");
    let caches = explained(
        "docs/schema-cache.md",
        "| reason | what happens, and what to do |",
    );
    let frame = explained("docs/operations.md", "| reason of the frame | what to do |");
    let all = &(&connections | &caches) | &frame;
    none(
        failures.difference(&all).cloned(),
        "reasons of failures without an explanation",
    );
    none(
        phases.difference(&connections).cloned(),
        "missing in docs/reddit-connection.md",
    );
    none(
        connections
            .difference(&(&(&failures | &phases) | &lifecycle))
            .cloned(),
        "superfluous in docs/reddit-connection.md",
    );
    none(
        caches.difference(&(&(&failures | &syncs) | &lifecycle)).cloned(),
        "superfluous in docs/schema-cache.md",
    );
}

#[test]
fn every_setting_is_explained() {
    let page = read("docs/operations.md");
    let command = Settings::augment_args(clap::Command::new("run"));
    let settings: Vec<_> = command.get_arguments().collect();
    assert!(settings.len() > 10);
    for setting in settings {
        let flag = setting.get_long().expect("settings have long flags");
        let variable = setting
            .get_env()
            .expect("settings have variables")
            .to_string_lossy();
        let row = format!("| `--{flag}` | `{variable}` |");
        assert!(page.contains(&row), "docs/operations.md has no row {row}");
    }
    // The API key has no flag.
    assert!(page.contains("| | `COMPOSIO_API_KEY` |"));
}
