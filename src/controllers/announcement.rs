//! What people are told about an object: an Event, and a line in the log.

/// Something to tell people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// A Warning rather than Normal.
    pub warning: bool,
    /// `PascalCase` reason.
    pub reason: &'static str,
    /// One sentence, without secrets.
    pub note: String,
}
