//! I/O in: what Composio offers. All caches of an API key share the lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};

use super::failure_run::FailureRun;
use super::observed::{Catalogue, CatalogueEntry, View};
use super::plan;
use crate::api::Reason;
use crate::api::composio_schema_cache::Discovery;
use crate::composio::{
    Connection, EnabledAuthConfigs, Error, Listing, Priority, ToolkitDetail, ToolkitSummary,
};
use crate::controllers::access::composio_failure;
use crate::controllers::shared::Shared;
use crate::runtime::failure::Failure;
use crate::runtime::wake_ups::ObjectKey;

/// How old a list may be that serves a refresh: after a restart many caches are due at once.
const FRESH_FOR: Duration = Duration::from_mins(1);

/// Toolkits that are asked for by name at the same time.
const ASKED_AT_ONCE: usize = 8;

/// What was listed lately, per API key.
#[derive(Default)]
pub struct Lists {
    toolkits: Shared<(String, bool), Arc<Listing<ToolkitSummary>>, Error>,
    auth_configs: Shared<String, Arc<EnabledAuthConfigs>, Error>,
    details: Shared<(String, String), Option<Arc<ToolkitDetail>>, Error>,
}

/// What Composio offers, and what could not be learnt of it.
pub struct Discovered {
    /// What Composio offers.
    pub catalogue: Catalogue,
    /// Toolkits that were asked for by name, without an answer.
    pub failed: BTreeMap<String, Failure>,
    /// Calls of the Composio API that this takes.
    pub api_calls: u64,
}

/// Asks what Composio offers.
pub async fn discover(
    lists: &Lists,
    connection: &Connection<ObjectKey>,
    view: &View<'_>,
) -> Result<Discovered, Failure> {
    // Nobody waits for what a refresh finds.
    let is_refresh = !plan::is_wanted(view) && view.status.retry.is_none();
    let asking = Asking {
        lists,
        connection,
        age: if is_refresh { FRESH_FOR } else { Duration::ZERO },
    };
    let configured = async {
        match view.spec.toolkits.discover {
            Discovery::AuthConfigs => asking.auth_configs().await.map(Some),
            Discovery::All | Discovery::None => Ok(None),
        }
    };
    let (listing, configs) = futures::try_join!(asking.toolkits(view.spec.include_deprecated), configured)
        .map_err(|error| refused(&error))?;
    // No project is without toolkits: this is no news but a failure.
    if listing.items.is_empty() && listing.missing() == 0 && plan::needs_whole_list(&view.spec.toolkits) {
        return Err(Failure::transient(
            Reason::EmptyResponse,
            "Composio lists no toolkit at all; nothing is changed",
        ));
    }
    let calls = listing.pages + configs.as_ref().map_or(0, |configs| configs.pages);
    let mut catalogue = Catalogue {
        toolkits: listing.items.iter().map(entry).collect(),
        missing_toolkits: listing.missing(),
        missing_auth_configs: configs.as_ref().map_or(0, |configs| configs.missing),
        configured: configs.map(|configs| {
            let slugs = configs.configs.iter().map(|config| config.toolkit.to_lowercase());
            slugs.filter(|slug| !slug.is_empty()).collect::<BTreeSet<_>>()
        }),
    };
    // The list need not show every toolkit that can be asked for.
    let named = view
        .spec
        .toolkits
        .include
        .iter()
        .chain(catalogue.configured.iter().flatten());
    let excluded = &view.spec.toolkits.exclude;
    let unlisted: BTreeSet<String> = named
        .filter(|slug| !catalogue.toolkits.contains_key(*slug) && !excluded.contains(slug))
        .cloned()
        .collect();
    let api_calls = (calls + unlisted.len()) as u64;
    let failed = asking.by_name(unlisted, &mut catalogue).await?;
    Ok(Discovered {
        catalogue,
        failed,
        api_calls,
    })
}

struct Asking<'a> {
    lists: &'a Lists,
    connection: &'a Connection<ObjectKey>,
    age: Duration,
}

impl Asking<'_> {
    fn key(&self) -> String {
        self.connection.fingerprint().to_owned()
    }

    async fn toolkits(&self, include_deprecated: bool) -> Result<Arc<Listing<ToolkitSummary>>, Error> {
        let list = async {
            let client = &self.connection.client;
            let listing = client
                .list_toolkits(Priority::Background, include_deprecated)
                .await?;
            Ok(Arc::new(listing))
        };
        let key = (self.key(), include_deprecated);
        self.lists.toolkits.get(key, self.age, list).await
    }

    async fn auth_configs(&self) -> Result<Arc<EnabledAuthConfigs>, Error> {
        let list = async {
            let client = &self.connection.client;
            Ok(Arc::new(
                client.list_all_auth_configs(Priority::Background).await?,
            ))
        };
        self.lists.auth_configs.get(self.key(), self.age, list).await
    }

    async fn detail(&self, slug: &str) -> Result<Option<Arc<ToolkitDetail>>, Error> {
        let ask = async {
            let client = &self.connection.client;
            Ok(client
                .toolkit(Priority::Background, slug, None)
                .await?
                .map(Arc::new))
        };
        self.lists
            .details
            .get((self.key(), slug.to_owned()), self.age, ask)
            .await
    }

    /// Asks for toolkits by name. One that cannot be had costs no other.
    async fn by_name(
        &self,
        slugs: BTreeSet<String>,
        catalogue: &mut Catalogue,
    ) -> Result<BTreeMap<String, Failure>, Failure> {
        let mut answers = stream::iter(slugs)
            .map(|slug| async move {
                let detail = self.detail(&slug).await;
                (slug, detail)
            })
            .buffered(ASKED_AT_ONCE);
        let mut failed = BTreeMap::new();
        let mut run = FailureRun::default();
        while let Some((slug, detail)) = answers.next().await {
            match detail {
                Ok(detail) => {
                    run.succeeded();
                    catalogue
                        .toolkits
                        .extend(detail.map(|detail| (slug, entry_of(&detail))));
                }
                Err(error) => {
                    let failure = composio_failure(&error, Reason::ToolkitRefused);
                    if run.concerns_all(&failure) {
                        return Err(failure);
                    }
                    failed.insert(slug, failure);
                }
            }
        }
        Ok(failed)
    }
}

fn entry(toolkit: &ToolkitSummary) -> (String, CatalogueEntry) {
    let entry = CatalogueEntry {
        version: toolkit.version.clone(),
        updated_at: toolkit.updated_at.clone(),
        no_auth: toolkit.no_auth,
        tools: toolkit.tools_count,
    };
    (toolkit.slug.clone(), entry)
}

fn entry_of(detail: &ToolkitDetail) -> CatalogueEntry {
    CatalogueEntry {
        version: detail.version.clone(),
        updated_at: detail.updated_at.clone(),
        no_auth: !detail.auth_modes.is_empty() && detail.auth_modes.iter().all(|mode| mode == "NO_AUTH"),
        tools: None,
    }
}

fn refused(error: &Error) -> Failure {
    composio_failure(error, Reason::RequestRefused)
}
