//! The files of a generation, on the local disk.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{
    GraphInput, LongList, Options, Progress, Spool, Stage, Stages, WikiInput, extraction, graphml, runs,
    spread,
};
use crate::digest;
use crate::fact::Fact;
use crate::graph::Graph;
use crate::message::Platform;
use crate::store::{self, Counts, StoreError};
use crate::wiki;

/// What is in a generation: `manifest.json`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// How the files are laid out: 1.
    pub format: u32,
    /// The platform.
    pub platform: Platform,
    /// The platform's id of the channel.
    pub channel: String,
    /// How much there is.
    pub counts: Counts,
    /// All files but this one, sorted by path.
    pub files: Vec<ManifestFile>,
}

/// A file of a generation.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ManifestFile {
    /// From the generation's folder.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// The hash of its bytes.
    pub sha256: String,
}

impl Manifest {
    /// Its name in a generation.
    pub const NAME: &str = "manifest.json";

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    pub(super) fn parse(bytes: &[u8], file: &str) -> Result<Self, StoreError> {
        serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged {
            file: file.to_owned(),
            reason: error.to_string(),
        })
    }
}

/// A generation on the local disk; it goes when this is dropped.
#[derive(Debug)]
pub struct Generated {
    /// Its name, which follows from its content.
    pub id: String,
    /// What is in it.
    pub manifest: Manifest,
    folder: TempDir,
}

impl Generated {
    /// Where the file is on the local disk.
    pub fn local(&self, path: &str) -> PathBuf {
        folder(self.folder.path()).join(path)
    }
}

fn folder(scratch: &Path) -> PathBuf {
    scratch.join("generation")
}

/// Stages 2 to 4 over the messages of the spool. It takes minutes for millions of messages and blocks meanwhile.
///
/// Fails where the local disk does, where a segment is damaged, or with [`StoreError::Cancelled`].
pub fn generate(
    spool: Spool,
    stages: &dyn Stages,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Generated, StoreError> {
    let spread = spread::spread(&spool, options, progress)?;
    let extractor = stages.extractor(&spread.people);
    let scratch = spool.folder.path();
    let extraction = extraction::extract(&spread, &*extractor, scratch, options, progress)?;
    drop(extractor);
    let (messages, people) = (spread.messages, spread.authors);
    drop(spread);
    let said = runs::merge(&extraction, scratch)?;

    let stop = || {
        if progress.cancelled() {
            Err(StoreError::Cancelled)
        } else {
            Ok(())
        }
    };
    progress.at(Stage::BuildingGraph, 0, 1);
    stop()?;
    let graph = stages.graph(GraphInput {
        facts: &said.facts,
        mentions: &said.mentions,
        relations: &said.relations,
        replies: &said.replies,
    });
    said.check()?;
    progress.at(Stage::BuildingGraph, 1, 1);
    stop()?;
    progress.at(Stage::GeneratingWiki, 0, 1);
    let commit = &spool.commit;
    let gaps: Vec<String> = commit.gaps.iter().map(ToString::to_string).collect();
    let pages = stages.wiki(&WikiInput {
        platform: commit.channel.platform,
        channel: commit.title.as_deref().unwrap_or(&commit.channel.channel),
        facts: &said.facts,
        graph: &graph,
        messages,
        people,
        gaps: &gaps,
    });
    said.check()?;
    progress.at(Stage::GeneratingWiki, 1, 1);
    stop()?;

    let counts = Counts {
        messages,
        people,
        facts: said.facts.len() as u64,
        entities: graph.entities.len() as u64,
        relations: graph.relations.len() as u64,
        pages: pages.len() as u64,
    };
    let mut files = Files {
        folder: folder(scratch),
        files: Vec::new(),
    };
    files.tables(&said.facts, &graph)?;
    drop(graph);
    said.check()?;
    files.pages(pages)?;
    files.files.sort_by(|a, b| a.path.cmp(&b.path));
    let manifest = Manifest {
        format: 1,
        platform: commit.channel.platform,
        channel: commit.channel.channel.clone(),
        counts,
        files: files.files,
    };
    let bytes = manifest.bytes();
    std::fs::write(files.folder.join(Manifest::NAME), &bytes)?;
    let id = digest::hex(&bytes)[..32].to_owned();
    Ok(Generated {
        id,
        manifest,
        folder: spool.folder,
    })
}

struct Files {
    folder: PathBuf,
    files: Vec<ManifestFile>,
}

impl Files {
    fn tables(&mut self, facts: &LongList<Fact>, graph: &Graph) -> Result<(), StoreError> {
        self.long("facts", facts)?;
        self.lines("graph/entities", &graph.entities)?;
        self.lines("graph/relations", &graph.relations)?;
        self.lines("graph/mentions", &graph.mentions)?;
        self.lines("graph/topics", &graph.topics)?;
        #[cfg(feature = "parquet")]
        {
            self.parquet("facts", facts.iter())?;
            self.parquet("graph/entities", graph.entities.iter().cloned())?;
            self.parquet("graph/relations", graph.relations.iter().cloned())?;
            self.parquet("graph/mentions", graph.mentions.iter().cloned())?;
        }
        let mut file = self.create("graph.graphml")?;
        graphml::write(graph, &mut file)?;
        file.flush()?;
        self.add("graph.graphml".into())
    }

    /// JSON Lines, compressed.
    fn lines<T: Serialize>(&mut self, name: &str, rows: &[T]) -> Result<(), StoreError> {
        let path = format!("{name}.jsonl.zst");
        let mut file = store::Compressed::new(self.create(&path)?)?;
        let mut line = Vec::new();
        for row in rows {
            line.clear();
            serde_json::to_writer(&mut line, row).map_err(std::io::Error::from)?;
            file.line(&line)?;
        }
        let (mut to, ..) = file.finish(path.clone())?;
        to.flush()?;
        self.add(path)
    }

    /// Likewise, of a list that is lines already.
    fn long(&mut self, name: &str, rows: &LongList<Fact>) -> Result<(), StoreError> {
        let path = format!("{name}.jsonl.zst");
        let mut file = store::Compressed::new(self.create(&path)?)?;
        for line in rows.lines()? {
            file.line(&line?)?;
        }
        let (mut to, ..) = file.finish(path.clone())?;
        to.flush()?;
        self.add(path)
    }

    #[cfg(feature = "parquet")]
    fn parquet<T: super::parquet::Table>(
        &mut self,
        name: &str,
        rows: impl Iterator<Item = T>,
    ) -> Result<(), StoreError> {
        let path = format!("{name}.parquet");
        super::parquet::write(rows, self.create(&path)?)?;
        self.add(path)
    }

    fn pages(&mut self, pages: Vec<wiki::Page>) -> Result<(), StoreError> {
        for page in pages {
            let path = format!("wiki/{}", page.path);
            if !is_inside(&page.path) {
                return Err(StoreError::BadName {
                    name: page.path,
                    reason: "this is no path of a page inside a wiki".into(),
                });
            }
            self.create(&path)?
                .into_inner()
                .map_err(std::io::IntoInnerError::into_error)?;
            std::fs::write(self.folder.join(&path), page.content)?;
            self.add(path)?;
        }
        Ok(())
    }

    fn create(&self, path: &str) -> std::io::Result<BufWriter<File>> {
        let path = self.folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(BufWriter::new(File::create(path)?))
    }

    fn add(&mut self, path: String) -> Result<(), StoreError> {
        let (bytes, sha256) = digest::of_file(&self.folder.join(&path))?;
        self.files.push(ManifestFile { path, bytes, sha256 });
        Ok(())
    }
}

/// Whether a path stays inside the folder that it is put into, on every system.
pub(super) fn is_inside(path: &str) -> bool {
    let fits = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    path.split('/').all(fits)
}
