//! The configuration of a simulator, with defaults for development.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use strum::{EnumString, IntoStaticStr, VariantNames};
use url::Url;

use crate::{catalogue::GeneratedCatalogue, clock::Clock};

/// Requests an organization may make in a minute on Composio's smaller plans.
pub const DEFAULT_RATE_LIMIT: u32 = 2_000;
/// The key a simulator accepts if none is configured.
pub const DEFAULT_API_KEY: &str = "ak_simulator";

/// How a simulator is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address people and clients reach it by, where that differs from `listen`; hosted links begin with it.
    pub public_url: Option<Url>,
    /// The keys it accepts.
    pub keys: Vec<ApiKey>,
    /// Auth configs that every project starts with.
    pub auth_configs: Vec<SeedAuthConfig>,
    /// As many auth configs exist from the start: those above, and as many more as are missing, for the catalogue's
    /// toolkits in turn. Above the number of toolkits, several share one.
    pub auth_config_count: usize,
    /// Toolkits beside the built-in ones; absent: none.
    pub generated: Option<GeneratedCatalogue>,
    /// The simulator's time.
    pub clock: Clock,
    /// Each link is opened and completed in the background this long, by the clock, after it was made.
    pub auto_consent: Option<Duration>,
    /// How long each API call takes, in real time: half of it passes before the call is handled.
    pub latency: Duration,
    /// Requests an organization may make in a minute; 0: no limit, and no rate-limit headers.
    pub rate_limit: u32,
    /// Calls the log remembers; older ones are dropped and counted.
    pub log_capacity: usize,
    /// What to do where Composio's own behaviour is not documented.
    pub assumptions: Assumptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            public_url: None,
            keys: vec![ApiKey::new(DEFAULT_API_KEY)],
            auth_configs: vec![SeedAuthConfig::managed("reddit")],
            auth_config_count: 0,
            generated: None,
            clock: Clock::system(),
            auto_consent: None,
            latency: Duration::ZERO,
            rate_limit: DEFAULT_RATE_LIMIT,
            log_capacity: 1_000_000,
            assumptions: Assumptions::default(),
        }
    }
}

/// An API key, the project it opens and what it may do there.
#[derive(Clone)]
pub struct ApiKey {
    /// The value of the `x-api-key` header.
    pub key: String,
    /// Keys of one project see the same accounts and auth configs.
    pub project: String,
    /// Keys of one organization share one rate limit.
    pub org: String,
    /// What it may do.
    pub scopes: Scopes,
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKey")
            .field("fingerprint", &crate::ids::fingerprint(&self.key))
            .field("project", &self.project)
            .field("org", &self.org)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

impl ApiKey {
    /// A default project key: every right, in the project and organization named `default`.
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            project: "default".to_owned(),
            org: "default".to_owned(),
            scopes: Scopes::Default,
        }
    }

    /// The same key for another project.
    #[must_use]
    pub fn project(self, project: impl Into<String>) -> Self {
        Self {
            project: project.into(),
            ..self
        }
    }

    /// The same key for another organization.
    #[must_use]
    pub fn org(self, org: impl Into<String>) -> Self {
        Self {
            org: org.into(),
            ..self
        }
    }

    /// The same key limited to `scopes`.
    #[must_use]
    pub fn scoped(self, scopes: impl IntoIterator<Item = (Area, Access)>) -> Self {
        Self {
            scopes: Scopes::Limited(scopes.into_iter().collect()),
            ..self
        }
    }
}

impl FromStr for ApiKey {
    type Err = String;

    /// `KEY` for a default key, `KEY=AREA:ACCESS,...` for a scoped one.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, scopes) = text
            .split_once('=')
            .map_or((text, None), |(key, scopes)| (key, Some(scopes)));
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a key is one or more printable ASCII characters without spaces".to_owned());
        }
        let Some(scopes) = scopes else {
            return Ok(Self::new(key));
        };
        let scopes: Result<Vec<_>, String> = scopes.split(',').map(scope).collect();
        Ok(Self::new(key).scoped(scopes?))
    }
}

fn scope(text: &str) -> Result<(Area, Access), String> {
    fn one_of<T: FromStr + VariantNames>(what: &str, name: &str) -> Result<T, String> {
        let known = T::VARIANTS.join(", ");
        name.parse()
            .map_err(|_| format!("unknown {what} `{name}`; there are {known}"))
    }
    let (area, access) = text
        .split_once(':')
        .ok_or_else(|| format!("`{text}` is not AREA:ACCESS"))?;
    Ok((one_of("area", area)?, one_of("access", access)?))
}

/// What a key may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scopes {
    /// A default project key: everything, except what needs a scoped key (proxy execution on v3.1).
    Default,
    /// A scoped key: these areas, nothing else.
    Limited(BTreeMap<Area, Access>),
}

impl Scopes {
    pub(crate) fn allow(&self, area: Area, needed: Access) -> bool {
        match self {
            Self::Default => true,
            Self::Limited(areas) => areas.get(&area).copied().unwrap_or(Access::None) >= needed,
        }
    }
}

/// An area of the API that scoped keys name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Area {
    /// `/auth_configs`.
    AuthConfigs,
    /// `/connected_accounts`, links included.
    ConnectedAccounts,
    /// Reading tools and their schemas.
    Tools,
    /// Running tools.
    ToolExecution,
    /// Calling a provider's API directly.
    ProxyExecute,
    /// `/toolkits`.
    Toolkits,
}

/// How far a scoped key's right in an area reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Access {
    /// Not at all.
    None,
    /// GET requests.
    Read,
    /// Every request.
    Write,
}

/// An auth config that exists from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedAuthConfig {
    /// Its id; absent: `ac_` and the toolkit's slug.
    pub id: Option<String>,
    /// Its name; absent: the toolkit's slug.
    pub name: Option<String>,
    /// The toolkit's slug.
    pub toolkit: String,
    /// Its scheme; absent: the toolkit's first.
    pub auth_scheme: Option<String>,
    /// Composio's own OAuth app (`default`) or the customer's (`custom`).
    pub managed: bool,
    /// A disabled one refuses links.
    pub enabled: bool,
}

impl SeedAuthConfig {
    /// The usual one: Composio's own app, enabled.
    pub fn managed(toolkit: impl Into<String>) -> Self {
        Self {
            id: None,
            name: None,
            toolkit: toolkit.into(),
            auth_scheme: None,
            managed: true,
            enabled: true,
        }
    }
}

impl FromStr for SeedAuthConfig {
    type Err = String;

    /// `TOOLKIT`, or `ID=TOOLKIT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (id, toolkit) = text
            .split_once('=')
            .map_or((None, text), |(id, toolkit)| (Some(id), toolkit));
        if toolkit.is_empty() || id.is_some_and(|id| !id.starts_with("ac_")) {
            return Err("expected TOOLKIT or ID=TOOLKIT, where ID begins with `ac_`".to_owned());
        }
        Ok(Self {
            id: id.map(str::to_owned),
            ..Self::managed(toolkit)
        })
    }
}

/// Choices where Composio's behaviour is not documented. Each can be switched, so that a client can be tried against
/// both readings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Assumptions {
    /// Undocumented body keys are refused with 400 instead of being ignored.
    pub reject_unknown_fields: bool,
    /// EXPIRED, FAILED and REVOKED accounts keep their alias from others until they are deleted or it is cleared.
    pub dead_rows_hold_alias: bool,
    /// The status call with `enabled: true` makes dead accounts ACTIVE instead of being refused with 400.
    pub enable_revives_dead: bool,
    /// The HTTP status of error 1810, execute without a matching account: 404 or 400, both have been seen.
    pub no_account_status: u16,
    /// Execute on INACTIVE, FAILED and REVOKED accounts is refused with 422; otherwise as if there were no account.
    pub dead_execute_unprocessable: bool,
    /// Proxy execution on v3.1 refuses default project keys.
    pub proxy_needs_scoped_key: bool,
    /// Items on a page if the request has no limit.
    pub default_page_size: usize,
    /// The maximum number of accounts on a page; a larger limit is refused with 400.
    pub max_account_page: usize,
    /// The maximum number of items on a page of any list, whatever limit the request has; absent: no such cap.
    pub page_cap: Option<usize>,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            reject_unknown_fields: false,
            dead_rows_hold_alias: true,
            enable_revives_dead: false,
            no_account_status: 404,
            dead_execute_unprocessable: true,
            proxy_needs_scoped_key: true,
            default_page_size: 20,
            max_account_page: 100,
            page_cap: None,
        }
    }
}

impl Assumptions {
    /// Sets one by its command-line name, as in `enable-revives-dead=true`.
    pub fn set(&mut self, assignment: &str) -> Result<(), String> {
        fn value<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
            text.parse()
                .map_err(|_| format!("`{text}` is no value for {name}"))
        }
        let (name, text) = assignment
            .split_once('=')
            .ok_or_else(|| format!("`{assignment}` is not NAME=VALUE"))?;
        match name {
            "reject-unknown-fields" => self.reject_unknown_fields = value(name, text)?,
            "dead-rows-hold-alias" => self.dead_rows_hold_alias = value(name, text)?,
            "enable-revives-dead" => self.enable_revives_dead = value(name, text)?,
            "no-account-status" => {
                self.no_account_status = value(name, text)?;
                if !matches!(self.no_account_status, 400 | 404) {
                    return Err("no-account-status is 400 or 404".to_owned());
                }
            }
            "dead-execute-unprocessable" => self.dead_execute_unprocessable = value(name, text)?,
            "proxy-needs-scoped-key" => self.proxy_needs_scoped_key = value(name, text)?,
            "default-page-size" => self.default_page_size = value::<usize>(name, text)?.max(1),
            "max-account-page" => self.max_account_page = value::<usize>(name, text)?.max(1),
            "page-cap" => self.page_cap = Some(value(name, text)?).filter(|most| *most > 0),
            _ => return Err(format!("there is no assumption `{name}`")),
        }
        Ok(())
    }
}
