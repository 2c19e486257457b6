//! Where a channel's messages and what is made of them are kept: files, S3, Google Cloud Storage or Azure, by one code.
//!
//! Under the root every channel has a folder, [`ChannelKey::folder`]:
//!
//! ```text
//! HEAD.json                  a hint {version}: where readers begin to look
//! commits/<20 digits>.json   the only truth. Each number is created once; who comes second is refused
//! messages/seg-*.jsonl.zst   messages, one a line, sorted by time and id
//! people-*.jsonl.zst         the names of people
//! gen/<generation>/          facts, graph and wiki; manifest.json has the sha256 of every file
//! ```
//!
//! A [`Commit`] names every file that counts. What none of the kept commits names is garbage, for [`Channel::collect`].
//! No function reads a clock: the time is an argument.

mod append;
mod channel;
mod collect;
mod commit;
mod compact;
mod error;
mod key;
mod people;
mod root;
mod segment;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests start writers and servers, and compare with the clock of the disk"
)]
pub(crate) mod tests;

pub use append::{Appended, Page};
pub use channel::Channel;
pub use collect::{Collected, Grace};
pub use commit::{Commit, Counts, FileRef, Gap, Generation, Segment, Writer, latest};
pub use error::StoreError;
pub use key::ChannelKey;
pub use root::Root;
pub use segment::{Rows, Version};

pub(crate) use commit::read as read_commit;
pub(crate) use people::{People, read as read_people};
pub(crate) use segment::{Compressed, Merged, Row, Source, merged};
