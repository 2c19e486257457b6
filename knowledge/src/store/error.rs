//! What can go wrong with a store, in words that tell an operator what to do.

use std::error::Error;
use std::io::ErrorKind;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Two writers would overwrite each other there.
    #[error(
        "the store {root} does not refuse to create a file that exists, so two writers would overwrite each other; \
         choose a store with conditional writes"
    )]
    NotConditional {
        /// The store.
        root: String,
    },
    /// Another writer was faster; what this one holds is out of date.
    #[error("commit {version} of {channel} was written by {winner}; this writer stops")]
    Conflict {
        /// The channel's folder.
        channel: String,
        /// The number that both wanted.
        version: u64,
        /// Who has it.
        winner: String,
    },
    /// No answer, or one that says nothing about the file.
    #[error("the store {root} cannot be reached: {reason}")]
    Unreachable {
        /// The store.
        root: String,
        /// What the store or the network said.
        reason: String,
    },
    /// It refuses writes, or this identity altogether.
    #[error(
        "the store {root} refuses access: {reason}; check that it can be written and with which identity"
    )]
    ReadOnly {
        /// The store.
        root: String,
        /// What it said.
        reason: String,
    },
    /// There is no room left.
    #[error("the store {root} is full: {reason}; make room and try again")]
    Full {
        /// The store.
        root: String,
        /// What it said.
        reason: String,
    },
    /// What was there is gone: a volume that is no longer mounted, a bucket that was deleted.
    #[error("the store {root} is gone: {reason}; check that the volume is mounted or the bucket exists")]
    Vanished {
        /// The store.
        root: String,
        /// What is missing.
        reason: String,
    },
    /// A file is not what its commit says.
    #[error("the file {file} is damaged: {reason}")]
    Damaged {
        /// The file, from the root.
        file: String,
        /// How it differs.
        reason: String,
    },
    /// A root or a channel that cannot be named in a store.
    #[error("{name:?} cannot be used: {reason}")]
    BadName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A temporary file on the local disk failed.
    #[error("the temporary directory failed: {0}")]
    Scratch(#[from] std::io::Error),
    /// A stage of the pipeline failed, which no input should bring about.
    #[error("a stage of the build failed: {reason}")]
    Stage {
        /// What happened.
        reason: String,
    },
    /// Somebody asked the work to stop.
    #[error("the work was cancelled")]
    Cancelled,
}

/// What kind of failure the store's client reports; what to do about it depends on nothing else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Exists,
    NotFound,
    ReadOnly,
    Full,
    Vanished,
    Other,
}

/// Reads the kind off the error and everything below it.
pub(super) fn kind(error: &object_store::Error) -> Kind {
    match error {
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => Kind::Exists,
        object_store::Error::NotFound { .. } if says(error, &["NoSuchBucket", "ContainerNotFound"]) => {
            Kind::Vanished
        }
        object_store::Error::NotFound { .. } => Kind::NotFound,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Kind::ReadOnly
        }
        _ => match io_kind(error) {
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) => Kind::Full,
            Some(ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => Kind::ReadOnly,
            _ if says(error, &["NoSuchBucket", "ContainerNotFound"]) => Kind::Vanished,
            _ if says(error, &["StorageFull", "QuotaExceeded", "InsufficientStorage"]) => Kind::Full,
            _ => Kind::Other,
        },
    }
}

/// The error as one for people. `root` names the store.
pub(super) fn typed(root: &str, error: &object_store::Error) -> StoreError {
    let root = root.to_owned();
    let reason = plain(error);
    match kind(error) {
        Kind::ReadOnly => StoreError::ReadOnly { root, reason },
        Kind::Full => StoreError::Full { root, reason },
        Kind::Vanished => StoreError::Vanished { root, reason },
        Kind::Exists | Kind::NotFound | Kind::Other => StoreError::Unreachable { root, reason },
    }
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error: &'e (dyn Error + 'static) = next?;
        next = error.source();
        Some(error)
    })
}

fn io_kind(error: &object_store::Error) -> Option<ErrorKind> {
    chain(error)
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind)
        .next()
}

fn says(error: &object_store::Error, words: &[&str]) -> bool {
    chain(error).any(|error| {
        let text = error.to_string();
        words.iter().any(|word| text.contains(word))
    })
}

/// The innermost message: the outer ones repeat it with internals. A query may hold a signature, so it is left out.
pub(super) fn plain(error: &object_store::Error) -> String {
    let innermost = chain(error)
        .last()
        .map_or_else(|| error.to_string(), ToString::to_string);
    without_queries(&innermost)
}

/// The text with what may be secret cut out of every URL: user, password and query.
fn without_queries(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme) = rest.find("://").map(|at| at + 3) {
        let ends = |c: char| c.is_whitespace() || "\"')>".contains(c);
        let end = rest[scheme..].find(ends).map_or(rest.len(), |n| scheme + n);
        let url = rest[scheme..end].split(['?', '#']).next().unwrap_or_default();
        let authority = url.split('/').next().unwrap_or_default().len();
        let user = url[..authority].rfind('@').map_or(0, |at| at + 1);
        plain.push_str(&rest[..scheme]);
        plain.push_str(&url[user..]);
        rest = &rest[end..];
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn Error + Send + Sync>>) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: source.into(),
        }
    }

    #[test]
    fn what_the_disk_says_becomes_a_kind() {
        let io = |kind: ErrorKind| generic(std::io::Error::from(kind));
        assert_eq!(kind(&io(ErrorKind::StorageFull)), Kind::Full);
        assert_eq!(kind(&io(ErrorKind::ReadOnlyFilesystem)), Kind::ReadOnly);
        assert_eq!(kind(&io(ErrorKind::PermissionDenied)), Kind::ReadOnly);
        assert_eq!(kind(&io(ErrorKind::ConnectionRefused)), Kind::Other);
        assert_eq!(kind(&generic("XMinioStorageFull: no room")), Kind::Full);
        assert_eq!(kind(&generic("<Code>NoSuchBucket</Code>")), Kind::Vanished);
    }

    #[test]
    fn a_signature_in_a_url_is_not_shown() {
        let error = generic(
            "GET https://a.blob.core.windows.net/c/x?sig=SECRET&se=1 failed, see http://h/y?t=SECRET",
        );
        let shown = typed("az://c", &error).to_string();
        assert!(!shown.contains("SECRET"), "{shown}");
        assert!(
            shown.contains("https://a.blob.core.windows.net/c/x failed, see http://h/y"),
            "{shown}"
        );
    }
}
