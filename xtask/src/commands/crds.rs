//! `cargo xtask crds`: the generated `CustomResourceDefinition`s, and the chart's copy of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use testing::workspace::{self, Programs};

/// Both hold the same files: Helm can only read files of the chart's own folder.
const FOLDERS: [&str; 2] = ["crds", "charts/composio-operator/crd-files"];

/// What to do with differences.
#[derive(clap::Args)]
pub struct Args {
    /// Change nothing; fail if a file is not what would be written.
    #[arg(long)]
    check: bool,
}

type Files = BTreeMap<String, String>;

/// Writes what differs from what the operator generates, or with `--check` fails and tells where it differs.
pub fn run(args: &Args) -> Result<()> {
    let wanted = generate()?;
    let mut stale = String::new();
    for folder in FOLDERS {
        let present = read(&workspace::root().join(folder))?;
        for (name, difference) in differences(&wanted, &present) {
            let _ = writeln!(stale, "  {folder}/{name}: {difference}");
            if !args.check {
                write(&workspace::root().join(folder).join(&name), wanted.get(&name))?;
            }
        }
    }
    match (stale.is_empty(), args.check) {
        (true, _) => println!("{} are up to date", FOLDERS.join(" and ")),
        (false, false) => print!("Brought up to date:\n{stale}"),
        (false, true) => bail!(
            "generated files differ from src/api/; run `cargo xtask crds` and commit the result:\n{}",
            stale.trim_end()
        ),
    }
    Ok(())
}

/// What the operator generates.
fn generate() -> Result<Files> {
    let programs = Programs::build()?;
    let folder = TempDir::new().context("cannot create a temporary directory")?;
    let status = Command::new(programs.path("composio-operator")?)
        .args(["crds", "--output"])
        .arg(folder.path())
        .status()
        .context("cannot run composio-operator")?;
    if !status.success() {
        bail!("composio-operator crds failed");
    }
    read(folder.path())
}

/// The YAML files of a folder by name. One that does not exist has none.
fn read(folder: &Path) -> Result<Files> {
    if !folder.exists() {
        return Ok(Files::new());
    }
    let mut files = Files::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml")
            && let Some(name) = path.file_name()
        {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(name.to_string_lossy().into_owned(), text);
        }
    }
    Ok(files)
}

/// Writes a file, or removes one that is wanted no more.
fn write(path: &Path, text: Option<&String>) -> Result<()> {
    match text {
        Some(text) => path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(path, text)),
        None => fs::remove_file(path),
    }
    .with_context(|| format!("cannot write {}", path.display()))
}

/// What is wrong with `present`, by file.
fn differences(wanted: &Files, present: &Files) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, wanted) in wanted {
        match present.get(name) {
            None => found.push((name.clone(), "missing".to_owned())),
            Some(present) if present != wanted => found.push((name.clone(), summary(wanted, present))),
            Some(_) => {}
        }
    }
    let superfluous = present.keys().filter(|name| !wanted.contains_key(*name));
    found.extend(superfluous.map(|name| (name.clone(), "generated no more".to_owned())));
    found
}

/// Where two texts part.
fn summary(wanted: &str, present: &str) -> String {
    let (mut should, mut is) = (wanted.lines(), present.lines());
    for number in 1.. {
        match (should.next(), is.next()) {
            (None, None) => break,
            (should, is) if should != is => {
                let text = |line: Option<&str>| line.map_or("the end".to_owned(), |line| format!("{line:?}"));
                return format!("line {number} is {}, should be {}", text(is), text(should));
            }
            _ => {}
        }
    }
    "line ends differ".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files<const N: usize>(files: [(&str, &str); N]) -> Files {
        files
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into()
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let wanted = files([
            ("a.yaml", "x\ny\n"),
            ("b.yaml", "x\n"),
            ("c.yaml", ""),
            ("d.yaml", "x\ny\n"),
        ]);
        let present = files([
            ("a.yaml", "x\nz\n"),
            ("b.yaml", "x"),
            ("d.yaml", "x\n"),
            ("e.yaml", ""),
        ]);
        let told = [
            ("a.yaml", r#"line 2 is "z", should be "y""#),
            ("b.yaml", "line ends differ"),
            ("c.yaml", "missing"),
            ("d.yaml", r#"line 2 is the end, should be "y""#),
            ("e.yaml", "generated no more"),
        ];
        assert_eq!(
            differences(&wanted, &present),
            told.map(|(name, what)| (name.to_owned(), what.to_owned()))
        );
        assert_eq!(differences(&wanted, &wanted), []);
    }

    #[test]
    fn files_are_written_and_removed() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("new/a.yaml");
        write(&path, Some(&"x\n".to_owned())).unwrap();
        assert_eq!(read(path.parent().unwrap()).unwrap(), files([("a.yaml", "x\n")]));
        write(&path, None).unwrap();
        assert_eq!(read(path.parent().unwrap()).unwrap(), Files::new());
    }
}
