//! I/O in: reads one toolkit with its tools, and doubts what it is told.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::plan::{DesiredToolkit, KnownTools};
use crate::api::Reason;
use crate::composio::{Client, Listing, Priority, Tool, ToolQuery, ToolkitDetail};
use crate::controllers::access::composio_failure;
use crate::runtime::failure::Failure;

/// Reads toolkits.
pub struct Reader<'a> {
    /// The way to Composio.
    pub client: &'a Client,
    /// Deprecated tools as well.
    pub include_deprecated: bool,
    /// When a toolkit that was not read counts as failed: before the reconcile itself is cut off.
    pub deadline: Instant,
    /// Calls of the Composio API so far.
    pub api_calls: AtomicU64,
}

/// What Composio says of a toolkit.
#[derive(Debug)]
pub struct Answer {
    /// The toolkit.
    pub detail: ToolkitDetail,
    /// Its tools, as far as they could be read.
    pub tools: Vec<Tool>,
    /// How many others there are.
    pub missing: usize,
}

impl Answer {
    /// What is to be said of tools that are missing.
    pub fn shortage(&self) -> Option<Failure> {
        (self.missing > 0).then(|| incomplete(self.tools.len(), self.missing))
    }
}

impl Reader<'_> {
    /// Reads a toolkit.
    pub async fn read(&self, desired: &DesiredToolkit) -> Result<Answer, Failure> {
        let answer = tokio::time::timeout_at(self.deadline, self.ask(desired)).await;
        answer.unwrap_or_else(|_| {
            Err(Failure::transient(
                Reason::ComposioUnavailable,
                "Composio did not answer within the time that one sync may take",
            ))
        })
    }

    async fn ask(&self, desired: &DesiredToolkit) -> Result<Answer, Failure> {
        let (detail, listing) = futures::try_join!(
            async {
                let version = desired.version.as_deref();
                let detail = self
                    .client
                    .toolkit(Priority::Background, &desired.slug, version)
                    .await;
                detail.map_err(|error| refused(&error))
            },
            self.tools(desired, self.include_deprecated),
        )?;
        self.api_calls.fetch_add(1, Ordering::Relaxed);
        let detail = detail.ok_or_else(|| unknown(desired))?;
        let (tools, missing) = of_version(desired, listing)?;
        if missing > 0 && tools.is_empty() {
            return Err(incomplete(0, missing));
        }
        if tools.is_empty() {
            let with_the_other_flag = self.tools(desired, !self.include_deprecated).await?;
            check_emptiness(desired, self.include_deprecated, &with_the_other_flag)?;
        }
        Ok(Answer {
            detail,
            tools,
            missing,
        })
    }

    async fn tools(
        &self,
        desired: &DesiredToolkit,
        include_deprecated: bool,
    ) -> Result<Listing<Tool>, Failure> {
        let query = ToolQuery {
            toolkit: desired.slug.clone(),
            version: desired.version.clone(),
            include_deprecated,
        };
        let listing = self.client.list_tools(Priority::Background, &query).await;
        let listing = listing.map_err(|error| refused(&error))?;
        self.api_calls.fetch_add(listing.pages as u64, Ordering::Relaxed);
        Ok(listing)
    }
}

/// The tools that can be cached, and how many others there are.
///
/// A list that ends before it is whole is no reason to give up what is cached as a whole. A tool that cannot be read costs
/// only itself, and so does one of another version than the pinned one.
fn of_version(desired: &DesiredToolkit, listing: Listing<Tool>) -> Result<(Vec<Tool>, usize), Failure> {
    let mut missing = listing.missing();
    let unlisted = missing - listing.skipped.len();
    let mut tools = listing.items;
    if unlisted > 0 && desired.known_tools == KnownTools::AllCached {
        return Err(incomplete(tools.len(), missing));
    }
    if desired.is_pinned {
        let is_other = |tool: &Tool| tool.version.is_some() && tool.version != desired.version;
        let other = tools
            .iter()
            .find(|tool| is_other(tool))
            .and_then(|tool| tool.version.clone());
        let before = tools.len();
        tools.retain(|tool| !is_other(tool));
        if let Some(other) = other.filter(|_| tools.is_empty()) {
            return Err(Failure::transient(
                Reason::InvalidResponse,
                format!(
                    "Composio delivered version {other} instead of the pinned {}",
                    desired.version.as_deref().unwrap_or_default()
                ),
            ));
        }
        missing += before - tools.len();
    }
    Ok((tools, missing))
}

/// Whether a list without tools may be believed, after one with the other choice about deprecated tools.
fn check_emptiness(
    desired: &DesiredToolkit,
    include_deprecated: bool,
    other: &Listing<Tool>,
) -> Result<(), Failure> {
    let has_others = !other.items.is_empty() || other.missing() > 0;
    let are_deprecated = other.missing() == 0 && other.items.iter().all(|tool| tool.is_deprecated);
    let is_explained = !include_deprecated && has_others && are_deprecated;
    if is_explained || !(has_others || desired.known_tools != KnownTools::None) {
        return Ok(());
    }
    Err(Failure::transient(
        Reason::EmptyResponse,
        "Composio listed no tools where there are some; what was cached stays",
    ))
}

fn incomplete(read: usize, missing: usize) -> Failure {
    Failure::transient(
        Reason::IncompleteResponse,
        format!(
            "Composio delivered {read} of {} tools, {missing} are missing",
            read + missing
        ),
    )
}

fn unknown(desired: &DesiredToolkit) -> Failure {
    let slug = &desired.slug;
    let what = match (&desired.version, desired.is_pinned) {
        (Some(version), true) => {
            format!("version {version} of toolkit {slug} does not exist in Composio; correct spec.versions")
        }
        (Some(version), false) => {
            return Failure::transient(
                Reason::IncompleteResponse,
                format!("Composio lists version {version} of toolkit {slug} and does not deliver it"),
            );
        }
        (None, _) => format!("toolkit {slug} does not exist in Composio; correct spec.toolkits"),
    };
    Failure::stalled(Reason::ToolkitNotFound, what)
}

fn refused(error: &crate::composio::Error) -> Failure {
    composio_failure(error, Reason::ToolkitRefused)
}

#[cfg(test)]
mod tests;
