//! Decisions are pure: `plan.rs`, `status.rs`, `observed.rs` and `phase.rs` of each controller, with their submodules, and
//! the format of cached schemas reach no client, no runtime and no clock. And the simulator stays what it is: a thing of tests and tools.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails by panicking, as the test does"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, UseTree};

/// Files of a controller that decide. Those marked must exist.
const PURE: [(&str, bool); 5] = [
    ("plan.rs", true),
    ("status.rs", true),
    ("announcements.rs", false),
    ("observed.rs", false),
    ("phase.rs", false),
];

/// What decisions must not reach: these paths and all below them. `crate` is this crate.
const FORBIDDEN: [&str; 28] = [
    "axum",
    "backon",
    "crate::composio::Client",
    "crate::composio::Connection",
    "crate::composio::Registry",
    "crate::composio::client",
    "crate::composio::reader",
    "crate::composio::registry",
    "crate::composio::transport",
    "crate::kube_io",
    "crate::telemetry",
    "fastrand",
    "futures",
    "hyper",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "kube::Api",
    "kube::Client",
    "kube::api",
    "kube::client",
    "kube::runtime",
    "reqwest",
    "std::env",
    "std::fs",
    "std::net",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
];

/// Collects what is forbidden in one file.
struct Checker {
    /// The module the file is, below `crate`.
    module: Vec<String>,
    /// What names that were brought into scope stand for.
    names: BTreeMap<String, String>,
    found: Vec<String>,
}

impl Checker {
    /// The forbidden things in a file that is the module `module`, as in `controllers::thing::plan`.
    fn check(module: &str, source: &str) -> Vec<String> {
        let file = syn::parse_file(source).expect("the source is Rust");
        let mut checker = Self {
            module: module.split("::").map(str::to_owned).collect(),
            names: BTreeMap::new(),
            found: Vec::new(),
        };
        // Twice, because a name may be used above the line that brings it into scope.
        checker.visit_file(&file);
        checker.found.clear();
        checker.visit_file(&file);
        checker.found.sort();
        checker.found.dedup();
        checker.found
    }

    /// A path from the root: names resolved, `super` and `self` replaced.
    fn absolute(&self, path: &str) -> String {
        let mut segments: Vec<&str> = path.split("::").filter(|segment| !segment.is_empty()).collect();
        match segments.first().copied() {
            Some("composio_operator") => segments[0] = "crate",
            Some("self" | "super") => {
                let up = segments.iter().take_while(|segment| **segment == "super").count();
                let rest = segments.iter().skip_while(|s| matches!(**s, "self" | "super"));
                let base = self.module.iter().take(self.module.len().saturating_sub(up));
                let all = ["crate"].into_iter().chain(base.map(String::as_str));
                return all.chain(rest.copied()).collect::<Vec<_>>().join("::");
            }
            Some(name) if self.names.contains_key(name) && !path.starts_with("::") => {
                segments[0] = &self.names[name];
            }
            _ => {}
        }
        segments.join("::")
    }

    fn note(&mut self, path: &str) {
        let path = self.absolute(path);
        let is_below = |root: &str| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        // A glob brings everything into scope, so it counts as what lies below it.
        let hides = |root: &str| {
            path.strip_suffix("::*")
                .is_some_and(|all| root.starts_with(&format!("{all}::")))
        };
        if FORBIDDEN.iter().any(|root| is_below(root) || hides(root)) {
            self.found.push(path);
        }
    }

    fn bring(&mut self, prefix: &str, tree: &UseTree) {
        let join = |name: &str| match prefix {
            "" => name.to_owned(),
            _ => format!("{prefix}::{name}"),
        };
        match tree {
            UseTree::Path(path) => self.bring(&join(&path.ident.to_string()), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.bring(prefix, tree)),
            UseTree::Glob(_) => self.note(&join("*")),
            UseTree::Name(name) if name.ident == "self" => {
                self.bind(prefix.rsplit("::").next().unwrap_or(prefix), prefix);
            }
            UseTree::Name(name) => self.bind(&name.ident.to_string(), &join(&name.ident.to_string())),
            UseTree::Rename(rename) if rename.ident == "self" => {
                self.bind(&rename.rename.to_string(), prefix);
            }
            UseTree::Rename(rename) => {
                self.bind(&rename.rename.to_string(), &join(&rename.ident.to_string()));
            }
        }
    }

    fn bind(&mut self, name: &str, path: &str) {
        // The first segment of an import is a crate or a module, never a name this very import brings.
        self.names.remove(name);
        let target = self.absolute(path);
        self.note(path);
        self.names.insert(name.to_owned(), target);
    }

    /// Paths inside a macro call, which is not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = String::new();
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if path.is_empty() || path.ends_with("::") => {
                    path += &ident.to_string();
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => path.push(':'),
                other => {
                    self.note(&std::mem::take(&mut path));
                    match other {
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Ident(ident) => path = ident.to_string(),
                        _ => {}
                    }
                }
            }
        }
        self.note(&path);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Checker {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        if !is_test(&import.attrs) {
            self.bring("", &import.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string());
        self.note(&segments.collect::<Vec<_>>().join("::"));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(call.tokens.clone());
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.asyncness.is_some() {
            self.found.push(format!("async fn {}", signature.ident));
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.found.push("async block".to_owned());
        visit::visit_expr_async(self, block);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `path` and, if it is a module with files of its own, those below it; tests are left out.
fn with_submodules(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for entry in entries {
            with_submodules(&entry, files);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
        files.push(path.to_owned());
    }
}

/// The module that the file at `path`, relative to `src`, holds.
fn module_of(path: &Path) -> String {
    let path = path.with_extension("");
    let parts = path.iter().map(|part| part.to_str().unwrap());
    parts.filter(|part| *part != "mod").collect::<Vec<_>>().join("::")
}

/// Every file that decides: the named ones of each controller, and all about the format of cached schemas.
fn pure_files() -> Vec<PathBuf> {
    let src = root().join("src");
    let mut files = Vec::new();
    with_submodules(&src.join("schemas"), &mut files);
    let controllers = std::fs::read_dir(src.join("controllers")).unwrap();
    for folder in controllers
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        for (file, required) in PURE {
            let path = folder.join(file);
            assert!(path.exists() || !required, "{} has no {file}", folder.display());
            for path in [path.clone(), path.with_extension("")] {
                if path.exists() {
                    with_submodules(&path, &mut files);
                }
            }
        }
    }
    files
}

#[test]
fn decisions_reach_no_client_no_runtime_and_no_clock() {
    let src = root().join("src");
    let files = pure_files();
    for one in [
        "schemas/drift.rs",
        "controllers/reddit_connection/plan/link.rs",
        "controllers/schema_cache/status.rs",
    ] {
        assert!(files.contains(&src.join(one)), "{one} is not looked at");
    }
    let mut found = Vec::new();
    for path in files {
        let path = path.strip_prefix(&src).unwrap();
        let source = std::fs::read_to_string(src.join(path)).unwrap();
        let impure = Checker::check(&module_of(path), &source);
        found.extend(
            impure
                .into_iter()
                .map(|what| format!("{}: {what}", path.display())),
        );
    }
    assert!(found.is_empty(), "impure decisions:\n{}", found.join("\n"));
}

#[track_caller]
fn finds(source: &str, what: &[&str]) {
    assert_eq!(
        Checker::check("controllers::thing::plan", source),
        what,
        "{source}"
    );
}

#[test]
fn impure_imports_are_noticed() {
    finds("use kube::{Api, ResourceExt};", &["kube::Api"]);
    finds("use kube::Client as C;", &["kube::Client"]);
    finds("use kube::*;", &["kube::*"]);
    finds(
        "use crate::composio::{Account, Connection};",
        &["crate::composio::Connection"],
    );
    finds(
        "use composio_operator::composio::Registry;",
        &["crate::composio::Registry"],
    );
    finds(
        "use super::super::super::composio::Client;",
        &["crate::composio::Client"],
    );
    finds(
        "use std::time::{self, Duration, Instant};",
        &["std::time::Instant"],
    );
    finds("fn f() { use tokio::time::sleep; }", &["tokio::time::sleep"]);
}

#[test]
fn impure_paths_are_noticed() {
    finds(
        "use jiff::Timestamp; fn f() -> Timestamp { Timestamp::now() }",
        &["jiff::Timestamp::now"],
    );
    finds(
        "use jiff as j; fn f() { j::Timestamp::now(); }",
        &["jiff::Timestamp::now"],
    );
    finds(
        "use std::time; fn f(_: time::SystemTime) {}",
        &["std::time::SystemTime"],
    );
    finds(
        "use crate::composio; fn f(_: &composio::Client) {}",
        &["crate::composio::Client"],
    );
    finds("fn f(_: Option<reqwest::Error>) {}", &["reqwest::Error"]);
    finds(
        "use jiff::Timestamp; fn f() { println!(\"{}\", Timestamp::now()); }",
        &["jiff::Timestamp::now"],
    );
    finds("async fn f() {}", &["async fn f"]);
    finds("fn f() { let _ = async {}; }", &["async block"]);
}

#[test]
fn plain_data_and_tests_are_left_alone() {
    finds(
        "use std::time::Duration; use jiff::Timestamp; use kube::ResourceExt; use crate::composio::{Account, Priority};
         fn f(now: Timestamp) -> Timestamp { Timestamp::max(now, now) }
         #[cfg(test)] mod tests { use tokio::test; fn g() { jiff::Timestamp::now(); } }",
        &[],
    );
}

/// Files below `path` that contain the simulator's name, but for tests.
fn mentions(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() && path.ends_with("tests") {
        return;
    }
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            mentions(&entry.unwrap().path(), found);
        }
    } else if let Ok(text) = std::fs::read_to_string(path)
        && ["composio_sim", "composio-sim"]
            .iter()
            .any(|name| text.contains(name))
    {
        found.push(path.to_owned());
    }
}

#[test]
fn the_operator_knows_of_no_simulator() {
    let mut found = Vec::new();
    for part in ["src", "charts", "crds", "examples", "Dockerfile"] {
        assert!(root().join(part).exists(), "{part} has moved");
        mentions(&root().join(part), &mut found);
    }
    assert_eq!(found, Vec::<PathBuf>::new());
    mentions(&root().join("simulator/Cargo.toml"), &mut found);
    assert_eq!(found.len(), 1, "the search finds what is there");

    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("\n[dependencies]\n").unwrap();
    let (dependencies, _) = dependencies.split_once("\n[").unwrap();
    assert!(dependencies.contains("kube") && !dependencies.contains("simulator"));
}
