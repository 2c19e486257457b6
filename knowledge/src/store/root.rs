//! The store itself: bytes in and out by path, with errors for people.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload, WriteMultipart};
use url::Url;

use super::StoreError;
use super::commit::FileRef;
use super::error::{Kind, kind, typed};
use crate::digest;

/// A store and the place in it under which all channels are.
#[derive(Clone, Debug)]
pub struct Root {
    store: Arc<dyn ObjectStore>,
    base: Path,
    /// How people call it; no query, no credentials.
    name: String,
    /// Where it is a folder of this machine.
    folder: Option<PathBuf>,
}

impl Root {
    /// Files from this size on go up in parts, so that they are not held as a whole.
    const PART: u64 = 8 * 1024 * 1024;
    /// How old what a killed writer left must be before it is swept: by then nobody is still writing it.
    const LEFTOVER: SignedDuration = SignedDuration::from_hours(1);

    /// Opens a root by URL: `file:///…` or a plain path (the folder is made), `s3://…`, `gs://…`, `az://…`.
    ///
    /// `options` are the settings of the cloud's client by their usual names (`aws_endpoint`, `AWS_REGION`, …); those of
    /// other clouds are ignored, so an environment can be passed as it is.
    pub fn open(url: &str, options: impl IntoIterator<Item = (String, String)>) -> Result<Self, StoreError> {
        let bad = |reason: String| StoreError::BadName {
            name: without_secrets(url),
            reason,
        };
        let parsed = if url.contains("://") {
            Url::parse(url).map_err(|error| bad(error.to_string()))?
        } else {
            let absolute = std::path::absolute(url).map_err(|error| bad(error.to_string()))?;
            Url::from_directory_path(absolute).map_err(|()| bad("this is no folder".into()))?
        };
        let name = without_secrets(parsed.as_str());
        if parsed.scheme() == "file" {
            let folder = parsed
                .to_file_path()
                .map_err(|()| bad("this is no folder of this machine".into()))?;
            return Self::in_folder(folder);
        }
        let (store, base) = object_store::parse_url_opts(&parsed, options)
            .map_err(|error| bad(super::error::plain(&error)))?;
        Ok(Self {
            store: store.into(),
            base,
            name,
            folder: None,
        })
    }

    /// A root in a folder of this machine, which is made where it is missing. It needs hard links.
    pub fn in_folder(folder: PathBuf) -> Result<Self, StoreError> {
        let name = folder.display().to_string();
        let generic = |error: std::io::Error| {
            typed(
                &name,
                &object_store::Error::Generic {
                    store: "file",
                    source: Box::new(error),
                },
            )
        };
        std::fs::create_dir_all(&folder).map_err(generic)?;
        let store = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|error| typed(&name, &error))?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        Ok(Self {
            store: Arc::new(store),
            base: Path::default(),
            name,
            folder: Some(folder),
        })
    }

    /// A root over a store that was made elsewhere.
    pub fn over(store: Arc<dyn ObjectStore>, name: &str) -> Self {
        Self {
            store,
            base: Path::default(),
            name: name.to_owned(),
            folder: None,
        }
    }

    /// How people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Proves that of two who create one file the second is refused. Every run begins with it.
    ///
    /// Fails with [`StoreError::NotConditional`] where the second is not refused.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let path = format!("probe-{:032x}", fastrand::u128(..));
        self.create(&path, Bytes::from_static(b"1"))
            .await
            .map_err(|error| self.typed(&error))?;
        let second = self.create(&path, Bytes::from_static(b"2")).await;
        self.delete(&path).await?;
        match second {
            Ok(()) => Err(StoreError::NotConditional {
                root: self.name.clone(),
            }),
            Err(error) if kind(&error) == Kind::Exists => Ok(()),
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                Err(StoreError::NotConditional {
                    root: self.name.clone(),
                })
            }
            Err(error) => Err(self.typed(&error)),
        }
    }

    /// The folders of all channels, sorted.
    pub async fn channels(&self) -> Result<Vec<String>, StoreError> {
        let mut level = vec![String::new()];
        // Cluster, namespace, platform, channel.
        for _ in 0..4 {
            let mut next = Vec::new();
            for folder in &level {
                let prefix = self.path(folder);
                let found = self
                    .store
                    .list_with_delimiter(Some(&prefix))
                    .await
                    .map_err(|error| self.typed(&error))?;
                next.extend(found.common_prefixes.iter().map(|path| self.relative(path)));
            }
            level = next;
        }
        level.sort();
        Ok(level)
    }

    /// The file, or nothing where there is none.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, StoreError> {
        let read = async { self.store.get(&self.path(path)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if kind(&error) == Kind::NotFound => Ok(None),
            Err(error) => Err(self.typed(&error)),
        }
    }

    /// A file that a commit names. Fails with [`StoreError::Damaged`] where it is not what the commit says.
    pub async fn get_whole(&self, folder: &str, file: &FileRef) -> Result<Bytes, StoreError> {
        let path = format!("{folder}/{}", file.path);
        let damaged = |reason: &str| StoreError::Damaged {
            file: path.clone(),
            reason: reason.to_owned(),
        };
        let bytes = self.get(&path).await?.ok_or_else(|| damaged("it is missing"))?;
        if digest::hex(&bytes) == file.sha256 {
            Ok(bytes)
        } else {
            Err(damaged("its sha256 is another"))
        }
    }

    /// The hash of the file's bytes, or nothing where there is none.
    pub(crate) async fn hash(&self, path: &str) -> Result<Option<String>, StoreError> {
        use sha2::{Digest, Sha256};

        let mut stream = match self.store.get(&self.path(path)).await {
            Ok(found) => found.into_stream(),
            Err(error) if kind(&error) == Kind::NotFound => return Ok(None),
            Err(error) => return Err(self.typed(&error)),
        };
        let mut hash = Sha256::new();
        while let Some(bytes) = stream.try_next().await.map_err(|error| self.typed(&error))? {
            hash.update(&bytes);
        }
        Ok(Some(digest::spelled(&hash.finalize())))
    }

    /// Copies a file that a commit names to the local disk without holding it. Errors as [`Root::get_whole`].
    pub(crate) async fn download(
        &self,
        folder: &str,
        file: &FileRef,
        to: &std::path::Path,
    ) -> Result<(), StoreError> {
        use sha2::{Digest, Sha256};
        use std::io::Write;

        let path = format!("{folder}/{}", file.path);
        let damaged = |reason: &str| StoreError::Damaged {
            file: path.clone(),
            reason: reason.to_owned(),
        };
        let mut stream = match self.store.get(&self.path(&path)).await {
            Ok(found) => found.into_stream(),
            Err(error) if kind(&error) == Kind::NotFound => return Err(damaged("it is missing")),
            Err(error) => return Err(self.typed(&error)),
        };
        let mut hash = Sha256::new();
        let mut local = std::fs::File::create(to)?;
        while let Some(bytes) = stream.try_next().await.map_err(|error| self.typed(&error))? {
            hash.update(&bytes);
            local.write_all(&bytes)?;
        }
        if digest::spelled(&hash.finalize()) == file.sha256 {
            Ok(())
        } else {
            Err(damaged("its sha256 is another"))
        }
    }

    /// Creates the file, or is refused because there is one. The error is the client's own: what it means depends on what
    /// is there afterwards.
    pub(super) async fn create(&self, path: &str, bytes: Bytes) -> Result<(), object_store::Error> {
        self.present()?;
        let mode = PutMode::Create.into();
        self.store
            .put_opts(&self.path(path), PutPayload::from_bytes(bytes), mode)
            .await
            .map(drop)
    }

    /// Writes the file, over whatever is there.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.present().map_err(|error| self.typed(&error))?;
        let put = self
            .store
            .put(&self.path(path), PutPayload::from_bytes(bytes))
            .await;
        put.map(drop).map_err(|error| self.typed(&error))
    }

    /// Writes a file of the local disk, a large one in parts.
    pub(crate) async fn upload(&self, path: &str, from: &std::path::Path) -> Result<(), StoreError> {
        use std::io::Read;

        let mut file = std::fs::File::open(from)?;
        if file.metadata()?.len() < Self::PART {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            return self.put(path, bytes.into()).await;
        }
        self.present().map_err(|error| self.typed(&error))?;
        let upload = self
            .store
            .put_multipart(&self.path(path))
            .await
            .map_err(|error| self.typed(&error))?;
        let mut parts = WriteMultipart::new(upload);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            parts
                .wait_for_capacity(2)
                .await
                .map_err(|error| self.typed(&error))?;
            parts.write(&buffer[..read]);
        }
        parts.finish().await.map(drop).map_err(|error| self.typed(&error))
    }

    /// Copies a file inside the store. `false` where there is none to copy.
    pub(crate) async fn copy(&self, from: &str, to: &str) -> Result<bool, StoreError> {
        self.present().map_err(|error| self.typed(&error))?;
        match self.store.copy(&self.path(from), &self.path(to)).await {
            Ok(()) => Ok(true),
            Err(error) if kind(&error) == Kind::NotFound => Ok(false),
            Err(error) => Err(self.typed(&error)),
        }
    }

    /// Whether the file is there.
    pub async fn exists(&self, path: &str) -> Result<bool, StoreError> {
        Ok(self.size(path).await?.is_some())
    }

    /// The size of the file, or nothing where there is none.
    pub(crate) async fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        match self.store.head(&self.path(path)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if kind(&error) == Kind::NotFound => Ok(None),
            Err(error) => Err(self.typed(&error)),
        }
    }

    /// All files below the folder, with paths from the root, sorted.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<Found>, StoreError> {
        let mut found: Vec<Found> = self
            .store
            .list(Some(&self.path(folder)))
            .map_ok(|meta: ObjectMeta| Found {
                path: self.relative(&meta.location),
                written: Timestamp::from_second(meta.last_modified.timestamp())
                    .and_then(|second| {
                        let nanos = i64::from(meta.last_modified.timestamp_subsec_nanos());
                        second.checked_add(SignedDuration::from_nanos(nanos))
                    })
                    .unwrap_or(Timestamp::MIN),
            })
            .try_collect()
            .await
            .map_err(|error| self.typed(&error))?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Deletes the file; that there is none is fine.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.path(path)).await {
            Ok(()) => Ok(()),
            Err(error) if kind(&error) == Kind::NotFound => Ok(()),
            Err(error) => Err(self.typed(&error)),
        }
    }

    /// Deletes many files; those that are missing are fine.
    pub(crate) async fn delete_all(&self, paths: &[String]) -> Result<(), StoreError> {
        let locations: Vec<_> = paths.iter().map(|path| Ok(self.path(path))).collect();
        let mut deletions = self.store.delete_stream(futures::stream::iter(locations).boxed());
        while let Some(deleted) = deletions.next().await {
            match deleted {
                Err(error) if kind(&error) != Kind::NotFound => return Err(self.typed(&error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what writers that were killed in the middle of a put left beside their files (`name#1`): what is older
    /// than an hour, or everything where `at_once` says that no text may stay. Returns how many files went.
    ///
    /// Only folders of this machine have such leftovers.
    pub fn sweep(&self, folder: &str, now: Timestamp, at_once: bool) -> Result<u64, StoreError> {
        let Some(root) = &self.folder else { return Ok(0) };
        let mut swept = 0;
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let old = meta
                    .modified()
                    .ok()
                    .and_then(|time| Timestamp::try_from(time).ok());
                let old = at_once || old.is_some_and(|time| now.duration_since(time) > Self::LEFTOVER);
                if old && is_leftover(&entry.file_name().to_string_lossy()) {
                    std::fs::remove_file(entry.path())
                        .map_err(|error| object_store::Error::Generic {
                            store: "file",
                            source: Box::new(error),
                        })
                        .map_err(|error| self.typed(&error))?;
                    swept += 1;
                }
            }
        }
        Ok(swept)
    }

    pub(super) fn typed(&self, error: &object_store::Error) -> StoreError {
        typed(&self.name, error)
    }

    /// Where the root is a folder, the client would make it anew on the bare mount point. That would hide the loss.
    fn present(&self) -> Result<(), object_store::Error> {
        match &self.folder {
            Some(folder) if !folder.is_dir() => Err(object_store::Error::NotFound {
                path: self.name.clone(),
                source: "NoSuchBucket: the folder is missing".into(),
            }),
            _ => Ok(()),
        }
    }

    fn path(&self, relative: &str) -> Path {
        Path::from(format!("{}/{relative}", self.base))
    }

    fn relative(&self, path: &Path) -> String {
        let base = self.base.as_ref();
        path.as_ref()
            .strip_prefix(base)
            .unwrap_or(path.as_ref())
            .trim_start_matches('/')
            .to_owned()
    }
}

/// A file of the store.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// From the root.
    pub(crate) path: String,
    /// When it was written, by the store's clock.
    pub(crate) written: Timestamp,
}

/// Whether the name is one under which a file is written before it gets its own.
fn is_leftover(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, id)| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
}

fn without_secrets(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        return url.split('?').next().unwrap_or_default().to_owned();
    };
    parsed.set_query(None);
    parsed.set_fragment(None);
    let _ = parsed.set_password(None);
    parsed.to_string()
}
