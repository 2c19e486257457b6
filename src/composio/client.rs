//! The endpoints that the operator uses, one method each.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::budget::{Budget, Priority};
use super::catalogue::{EnabledAuthConfigs, Tool, ToolQuery, ToolkitDetail, ToolkitSummary};
use super::list::{List, Listing, PAGE_SIZE, read};
use super::model::{
    Account, AccountQuery, AccountStatus, AuthConfig, Deletion, ExecuteRequest, Link, LinkRequest, ToolResult,
};
use super::transport::{Call, EXECUTE_TOOL, Failure, Transport};
use super::whole_list::read_whole;
use super::{ClientOptions, Error, wire};

/// Longest error text of a tool that is kept, in characters: callers search it for words.
const TOOL_ERROR_LIMIT: usize = 1000;

/// Items per page of toolkits and of tools: the most that these endpoints give.
const CATALOGUE_PAGE_SIZE: &str = "1000";

/// The process that a client works for: it is told of every request that was sent and every budget that was reported, and
/// decides whether anything may be changed.
pub(crate) trait Surroundings: Send + Sync {
    /// A request ended; `outcome` is `ok` or [`Error::outcome`]. Quick retries are requests of their own.
    fn call(&self, operation: &'static str, outcome: &'static str, elapsed: Duration);
    /// An answer reported the rate limit and what remains of it.
    fn budget(&self, limit: u64, remaining: u64);
    /// Whether this process may change anything at Composio. Asked right before each call that may, after its wait for a
    /// turn: another replica may lead by then.
    fn may_change(&self) -> bool;
}

/// Ignores everything.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoSurroundings;

#[cfg(test)]
impl Surroundings for NoSurroundings {
    fn call(&self, _operation: &'static str, _outcome: &'static str, _elapsed: Duration) {}
    fn budget(&self, _limit: u64, _remaining: u64) {}
    fn may_change(&self) -> bool {
        true
    }
}

/// Calls Composio with one API key. Clones share connections and budget.
#[derive(Clone)]
pub(crate) struct Client(Arc<Transport>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0).finish()
    }
}

impl Client {
    /// A client with connections of its own. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::InvalidOptions`] or [`Error::InvalidKeyFormat`].
    #[cfg(test)]
    pub(super) fn new(
        options: &ClientOptions,
        key: SecretString,
        budget: Budget,
        surroundings: Arc<dyn Surroundings>,
    ) -> Result<Self, Error> {
        Self::with_http(
            options,
            super::transport::http_client(options)?,
            key,
            budget,
            surroundings,
        )
    }

    /// A client that shares connections with others.
    pub(super) fn with_http(
        options: &ClientOptions,
        http: reqwest::Client,
        key: SecretString,
        budget: Budget,
        surroundings: Arc<dyn Surroundings>,
    ) -> Result<Self, Error> {
        Ok(Self(Arc::new(Transport::new(
            options,
            http,
            key,
            budget,
            surroundings,
        )?)))
    }

    /// The budget that all calls of this client use.
    #[cfg(test)]
    pub(super) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// If Composio answered 401 within the last five minutes and no call has succeeded since: that error, and how much
    /// longer it counts. Calls are sent nevertheless, so callers should ask first.
    pub(crate) fn unauthorized_since(&self) -> Option<(Error, Duration)> {
        self.0.unauthorized_since()
    }

    /// Forgets the 401 and any refusal of the rate limiter, so that callers try the key again.
    pub(crate) fn try_again(&self) {
        self.0.set_unauthorized(None);
        self.0.budget.reopen();
    }

    /// All auth configs of one toolkit, the disabled ones included.
    pub(crate) async fn list_auth_configs(
        &self,
        priority: Priority,
        toolkit: &str,
    ) -> Result<Vec<AuthConfig>, Error> {
        let toolkit = joined("toolkit", &[toolkit])?;
        let list = List {
            operation: "list_auth_configs",
            path: "auth_configs",
            page_size: PAGE_SIZE,
            query: vec![("toolkit_slug", &toolkit), ("show_disabled", "true")],
            decode: wire::auth_config_item,
            id: |config: &AuthConfig| &config.id,
            // If the server ignored the filter, configs of other toolkits must not be returned.
            wanted: &|config| config.toolkit.is_empty() || config.toolkit.eq_ignore_ascii_case(&toolkit),
        };
        Ok(read(&self.0, priority, &list).await?.items)
    }

    /// Every auth config of the project that new accounts can be made with.
    pub(crate) async fn list_all_auth_configs(
        &self,
        priority: Priority,
    ) -> Result<EnabledAuthConfigs, Error> {
        let list = List {
            operation: "list_auth_configs",
            path: "auth_configs",
            // The endpoint's own limit.
            page_size: "200",
            // Whether the total counts the disabled ones when they are not shown is not documented.
            query: vec![("show_disabled", "true")],
            decode: wire::auth_config_item,
            id: |config: &AuthConfig| &config.id,
            wanted: &|_| true,
        };
        let listing = read_whole(&self.0, priority, list).await?;
        Ok(EnabledAuthConfigs {
            missing: listing.missing(),
            pages: listing.pages,
            configs: listing
                .items
                .into_iter()
                .filter(|config| config.enabled)
                .collect(),
        })
    }

    /// The whole catalogue, by slug: native and custom toolkits. Composio lists deprecated ones on request, and does not
    /// mark them.
    pub(crate) async fn list_toolkits(
        &self,
        priority: Priority,
        include_deprecated: bool,
    ) -> Result<Listing<ToolkitSummary>, Error> {
        let list = List {
            operation: "list_toolkits",
            path: "toolkits",
            page_size: CATALOGUE_PAGE_SIZE,
            query: vec![
                ("type", "all"),
                ("include_deprecated", bool_text(include_deprecated)),
                // The other order, by usage, moves while pages are read.
                ("sort_by", "alphabetically"),
            ],
            decode: wire::toolkit_item,
            id: |toolkit: &ToolkitSummary| &toolkit.slug,
            wanted: &|toolkit| include_deprecated || !toolkit.deprecated,
        };
        read_whole(&self.0, priority, list).await
    }

    /// One toolkit, of its latest version or the one named; `None` if Composio says that there is no such toolkit, or
    /// no such version of it.
    pub(crate) async fn toolkit(
        &self,
        priority: Priority,
        slug: &str,
        version: Option<&str>,
    ) -> Result<Option<ToolkitDetail>, Error> {
        let path = ["toolkits", slug];
        let mut call = self.request("get_toolkit", priority, Method::GET, &path, None)?;
        if let Some(version) = version {
            call.url = self.0.url(&path, &[("version", version)])?;
        }
        match self.0.call(&call, wire::toolkit).await {
            Ok(toolkit) if toolkit.slug.eq_ignore_ascii_case(slug) => Ok(Some(toolkit)),
            Ok(_) => Err(Error::Decode {
                message: "the answer is about another toolkit".to_owned(),
                excerpt: String::new(),
            }),
            Err(failure) if is_gone(&failure) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// All tools of a toolkit with their schemas. A toolkit that does not exist may well be an empty list.
    pub(crate) async fn list_tools(
        &self,
        priority: Priority,
        query: &ToolQuery,
    ) -> Result<Listing<Tool>, Error> {
        let toolkit = joined("toolkit", &[&query.toolkit])?;
        // A version without the toolkit it belongs to is only documented for `latest`.
        let version = match &query.version {
            Some(version) => (
                format!("toolkit_versions[{toolkit}]"),
                joined("version", &[version])?,
            ),
            None => ("toolkit_versions".to_owned(), "latest".to_owned()),
        };
        let list = List {
            operation: "list_tools",
            path: "tools",
            page_size: CATALOGUE_PAGE_SIZE,
            query: vec![
                ("toolkit_slug", &toolkit),
                (&version.0, &version.1),
                // Without it deprecated tools are shown.
                ("include_deprecated", bool_text(query.include_deprecated)),
            ],
            decode: wire::tool_item,
            id: |tool: &Tool| &tool.slug,
            // If the server ignored the filter, tools of other toolkits must not be returned.
            wanted: &|tool| tool.toolkit.slug.is_empty() || tool.toolkit.slug.eq_ignore_ascii_case(&toolkit),
        };
        read_whole(&self.0, priority, list).await
    }

    /// All accounts that match, of every status and account type, oldest first.
    pub(crate) async fn list_accounts(
        &self,
        priority: Priority,
        query: &AccountQuery,
    ) -> Result<Listing<Account>, Error> {
        let filters = [
            ("toolkit_slugs", joined("toolkit", &query.toolkits)?),
            ("user_ids", joined("user id", &query.user_ids)?),
            ("connected_account_ids", joined("account id", &query.ids)?),
        ];
        let mut parameters: Vec<(&str, &str)> = filters
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        parameters.extend([
            ("statuses", AccountStatus::LISTED),
            ("account_type", "ALL"),
            // New accounts appear behind the last page, where they cannot push others past the cursor.
            ("order_by", "created_at"),
            ("order_direction", "asc"),
        ]);
        let passes = |wanted: &[String], value: &str| {
            wanted.is_empty() || value.is_empty() || wanted.iter().any(|one| one.eq_ignore_ascii_case(value))
        };
        let list = List {
            operation: "list_accounts",
            path: "connected_accounts",
            page_size: PAGE_SIZE,
            query: parameters,
            decode: wire::account_item,
            id: |account: &Account| &account.id,
            // If the server ignored a filter, accounts of other people must not be returned.
            wanted: &|account| {
                passes(&query.toolkits, &account.toolkit)
                    && (query.user_ids.is_empty()
                        || account.user_id.is_empty()
                        || query.user_ids.contains(&account.user_id))
                    && (query.ids.is_empty() || query.ids.contains(&account.id))
            },
        };
        read(&self.0, priority, &list).await
    }

    /// One account; `None` if Composio says that it does not exist. A 404 with an HTML page comes from a proxy and is an
    /// error.
    pub(crate) async fn account(&self, priority: Priority, id: &str) -> Result<Option<Account>, Error> {
        let call = self.request(
            "get_account",
            priority,
            Method::GET,
            &["connected_accounts", id],
            None,
        )?;
        match self.0.call(&call, wire::account).await {
            Ok(account) if account.id == id => Ok(Some(account)),
            Ok(_) => Err(Error::Decode {
                message: "the answer is about another account".to_owned(),
                excerpt: String::new(),
            }),
            Err(failure) if is_gone(&failure) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Makes an account and the link with which its user completes it. Never repeated: after an error that leaves open
    /// whether the request had its effect, the account may exist and can be found by its alias.
    pub(crate) async fn create_link(&self, priority: Priority, request: &LinkRequest) -> Result<Link, Error> {
        let mut body = json!({
            "auth_config_id": request.auth_config_id,
            "user_id": request.user_id,
            "alias": request.alias,
        });
        if let Some(callback_url) = &request.callback_url {
            body["callback_url"] = callback_url.as_str().into();
        }
        let path = ["connected_accounts", "link"];
        let mut call = self.request("create_link", priority, Method::POST, &path, Some(&body))?;
        call.repeatable = false;
        match self.0.call(&call, wire::link).await {
            Ok(link) => Ok(link),
            // Whatever this body is, it may hold the link.
            Err(Failure {
                error: Error::Decode { message, .. },
                ..
            }) => Err(Error::Decode {
                message,
                excerpt: String::new(),
            }),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Deletes an account; with `revoke` its tokens are revoked at the provider first, as far as that is possible.
    pub(crate) async fn delete_account(&self, id: &str, revoke: bool) -> Result<Deletion, Error> {
        let mut call = self.request(
            "delete_account",
            Priority::Pending,
            Method::DELETE,
            &["connected_accounts", id],
            None,
        )?;
        call.url = self.0.url(
            &["connected_accounts", id],
            &[("revoke_on_delete", bool_text(revoke))],
        )?;
        match self.0.call(&call, wire::success).await {
            Ok(true) => Ok(Deletion::Deleted),
            Ok(false) => Err(refused("the account was not deleted")),
            Err(failure) if is_gone(&failure) => Ok(Deletion::AlreadyGone),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Enables or disables an account. Not a repair for expired or revoked accounts.
    pub(crate) async fn set_account_enabled(&self, id: &str, enabled: bool) -> Result<(), Error> {
        let path = ["connected_accounts", id, "status"];
        let body = json!({ "enabled": enabled });
        let call = self.request(
            "set_account_enabled",
            Priority::Pending,
            Method::PATCH,
            &path,
            Some(&body),
        )?;
        match self.0.call(&call, wire::success).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(refused("the account was neither enabled nor disabled")),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Runs a tool. Never repeated: tools may write. A tool that failed is an `Ok` whose result says so.
    pub(crate) async fn execute(
        &self,
        priority: Priority,
        tool: &str,
        request: &ExecuteRequest,
    ) -> Result<ToolResult, Error> {
        let arguments = match &request.arguments {
            Value::Null => Value::Object(Map::new()),
            Value::Object(_) => request.arguments.clone(),
            _ => {
                return Err(Error::InvalidRequest {
                    message: "a tool's arguments must be an object".to_owned(),
                });
            }
        };
        let body = json!({
            "user_id": request.user_id,
            "connected_account_id": request.connected_account_id,
            "arguments": arguments,
            "version": request.version,
        });
        let path = ["tools", "execute", tool];
        let mut call = self.request(EXECUTE_TOOL, priority, Method::POST, &path, Some(&body))?;
        call.repeatable = false;
        let mut result = self.0.call(&call, wire::tool_result).await?;
        result.error = result.error.map(|error| self.0.clean(&error, TOOL_ERROR_LIMIT));
        Ok(result)
    }

    fn request(
        &self,
        operation: &'static str,
        priority: Priority,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Call, Error> {
        let url = self.0.url(path, &[])?;
        let body = body.map(|body| body.to_string().into_bytes());
        Ok(Call {
            operation,
            priority,
            method,
            url,
            body,
            repeatable: true,
        })
    }
}

/// Composio itself says that the object does not exist.
fn is_gone(failure: &Failure) -> bool {
    failure.error.is_not_found() && failure.from_composio
}

/// A success status with a body that says otherwise.
fn refused(message: &str) -> Error {
    Error::Http {
        status: 200,
        code: None,
        slug: None,
        message: message.to_owned(),
        request_id: None,
        retry_after: None,
    }
}

fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// The API joins the values of a filter with commas, so that a value with a comma would be two.
fn joined(what: &str, values: &[impl AsRef<str>]) -> Result<String, Error> {
    let mut text = String::new();
    for value in values {
        let value = value.as_ref();
        if value.is_empty() || value.contains(',') {
            return Err(Error::InvalidRequest {
                message: format!("a {what} must not be empty or contain a comma"),
            });
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(value);
    }
    Ok(text)
}
