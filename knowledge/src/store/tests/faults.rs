//! A store that fails where a test wants it to.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What goes wrong. Changes (puts, copies, deletions) are counted from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The writer dies at that change, before its effect; from then on nothing works.
    DieBefore(u64),
    /// Likewise after the effect.
    DieAfter(u64),
    /// That change has its effect and answers an error, once.
    LoseAnswer(u64),
    /// That change has no effect and answers an error, once.
    Fail(u64),
    /// Every create answers "exists" the first time, without an effect: a store that reports a race too early.
    Early409(u64),
    /// Conditions are ignored.
    Unconditional,
    /// Every change fails in this way.
    Refuse(ErrorKind),
}

#[derive(Debug)]
pub(crate) struct Faulty {
    store: Arc<dyn ObjectStore>,
    fault: Fault,
    changes: AtomicU64,
}

impl Faulty {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            store,
            fault,
            changes: AtomicU64::new(0),
        })
    }

    /// How many changes were tried.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    fn dead(&self) -> Result<()> {
        match self.fault {
            Fault::DieBefore(n) | Fault::DieAfter(n) if self.changes() >= n => {
                Err(broken(ErrorKind::BrokenPipe))
            }
            _ => Ok(()),
        }
    }

    /// Before a change. `true` means that the answer is lost.
    fn before(&self) -> Result<bool> {
        self.dead()?;
        let n = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        match self.fault {
            Fault::DieBefore(at) | Fault::Fail(at) if n == at => Err(broken(ErrorKind::ConnectionReset)),
            Fault::DieAfter(at) | Fault::LoseAnswer(at) if n == at => Ok(true),
            Fault::Early409(at) if n == at => Err(Error::AlreadyExists {
                path: String::new(),
                source: "409 Conflict: ConditionalRequestConflict".into(),
            }),
            Fault::Refuse(kind) => Err(broken(kind)),
            _ => Ok(false),
        }
    }
}

fn broken(kind: ErrorKind) -> Error {
    Error::Generic {
        store: "faulty",
        source: Box::new(std::io::Error::from(kind)),
    }
}

fn answered<T>(lost: bool, answer: T) -> Result<T> {
    if lost {
        Err(broken(ErrorKind::TimedOut))
    } else {
        Ok(answer)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} over {}", self.fault, self.store)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, to: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let lost = self.before()?;
        if self.fault == Fault::Unconditional {
            options.mode = PutMode::Overwrite;
        }
        let put = self.store.put_opts(to, payload, options).await?;
        answered(lost, put)
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.before()?;
        self.store.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.dead()?;
        self.store.get_opts(location, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.before() {
            Ok(false) => self.store.delete_stream(paths),
            Ok(true) => {
                let deleted = self.store.delete_stream(paths);
                deleted.map(|_| Err(broken(ErrorKind::TimedOut))).boxed()
            }
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.dead() {
            Ok(()) => self.store.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.dead()?;
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let lost = self.before()?;
        self.store.copy_opts(from, to, options).await?;
        answered(lost, ())
    }
}
