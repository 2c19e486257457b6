//! `RedditConnection`: one Reddit account connected through Composio.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use super::common::{RetryStatus, SecretKeyRef, UNOBSERVED, managed_fields};

/// Condition: the account is ACTIVE at Composio.
pub const CONNECTED: &str = "Connected";
/// Condition: the credential was seen working by a call to Reddit. ACTIVE alone does not prove that.
pub const USABLE: &str = "Usable";
/// Condition: a person has to authorise the account again.
pub const REAUTH_REQUIRED: &str = "ReauthRequired";

/// Finalizer that holds an object until its account at Composio is cleaned up.
pub const FINALIZER: &str = "composio-operator.dev/composio-account";

/// The toolkit every account of this resource must belong to, in Composio's spelling.
pub const TOOLKIT: &str = "reddit";

/// What to connect and how to treat it.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "composio-operator.dev",
    version = "v1alpha1",
    kind = "RedditConnection",
    namespaced,
    status = "RedditConnectionStatus",
    derive = "PartialEq",
    shortname = "rdc",
    category = "composio",
    doc = "A RedditConnection is one Reddit account connected through Composio: the operator makes the link a person \
           opens, waits until they are done, learns who they are, says when they have to sign in again, and removes the \
           account at Composio when the object is deleted.",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Reddit User", type_ = "string", json_path = ".status.displayName"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "User", type_ = "string", json_path = ".spec.userId", priority = 1),
    printcolumn(name = "Account", type_ = "string", json_path = ".status.connectedAccountId", priority = 1),
    printcolumn(name = "Provider Status", type_ = "string", json_path = ".status.providerStatus", priority = 1),
    printcolumn(
        name = "Usable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Usable\")].status",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.size() <= 63").message(
        "metadata.name must be no more than 63 characters: the link Secret is named <name>-link"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.managementPolicy != 'Observe' || has(self.connectedAccountId)").message(
        "managementPolicy Observe needs connectedAccountId: an observed account is never created"
    ),
    validation = Rule::new("self.managementPolicy != 'Observe' || self.enabled").message(
        "enabled: false changes the account at Composio, which managementPolicy Observe forbids"
    ),
    validation = Rule::new(
        "self.managementPolicy != 'Observe' || !has(self.deletionPolicy) || self.deletionPolicy == 'Retain'"
    )
    .message("managementPolicy Observe never deletes an account: leave deletionPolicy out or set it to Retain"),
    validation = Rule::new("has(self.connectedAccountId) == has(oldSelf.connectedAccountId)").message(
        "connectedAccountId cannot be added or removed later: create another RedditConnection instead"
    ))]
pub struct RedditConnectionSpec {
    /// Id of the person at Composio, as your agents use it (`user_id`). Immutable. No comma, because Composio lists ids
    /// separated by commas, and not `default`, which Composio uses when no user is given.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("userId is immutable: create another RedditConnection for another person"),
        validation = Rule::new("!self.contains(',')").message("userId must not contain a comma: Composio reads it as a list of ids"),
        validation = Rule::new("self != 'default'").message("userId must not be 'default': Composio uses that id when none is given"),
        validation = Rule::new("!self.matches('[[:cntrl:]]')").message("userId must not contain control characters"),
        validation = Rule::new("self.trim() == self").message("userId must not start or end with white space")
    )]
    pub user_id: String,

    /// Composio auth config to connect with (`ac_...`). Absent: the only enabled Reddit auth config of the project; when
    /// there are several, the object stalls and lists them. A change counts from the next link on: an account that is
    /// connected stays so. An adopted account has to belong to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 4, max = 128), regex(pattern = r"^ac_[A-Za-z0-9_-]+$"))]
    pub auth_config_id: Option<String>,

    /// Where Composio sends the person's browser after the consent page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub callback_url: Option<String>,

    /// Secret with the Composio project API key, in this namespace. Absent: the operator's own key, if the installation
    /// shares it with this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,

    /// Manage: create, change and delete the account. Observe: only watch the account named by connectedAccountId.
    #[serde(default)]
    pub management_policy: ManagementPolicy,

    /// Adopt this existing account (`ca_...`) instead of making a link. Refused if it belongs to another userId or to
    /// another toolkit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 4, max = 128), regex(pattern = r"^ca_[A-Za-z0-9_-]+$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("connectedAccountId is immutable: create another RedditConnection for another account"))]
    pub connected_account_id: Option<String>,

    /// What happens to the account at Composio when this object is deleted. Delete: removed at Composio. Revoke: removed,
    /// and Reddit's tokens are revoked too. Retain: left as it is. Default: Delete for an account made for this object,
    /// Retain for an adopted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// false disables the account at Composio, so that no tool runs with it; true enables it again.
    #[serde(default = "default_true")]
    pub enabled: bool,

    /// Reddit user name that has to connect, without `u/`. Anybody else is refused (reason `IdentityMismatch`) and the
    /// account made for them is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub expected_username: Option<String>,

    /// The link a person opens to connect the account.
    #[serde(default)]
    pub link: LinkSpec,

    /// How often Composio is asked about the account.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub polling: PollingSpec,

    /// true stops all work on this object; deletion still works.
    #[serde(default)]
    pub suspend: bool,
}

/// Who owns the account's life cycle.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ManagementPolicy {
    /// The operator creates, changes and deletes the account.
    #[default]
    Manage,
    /// The operator only watches an existing account.
    Observe,
}

/// What deletion of the object does to the account.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DeletionPolicy {
    /// Delete the account at Composio.
    Delete,
    /// Delete the account at Composio and revoke its tokens at Reddit.
    Revoke,
    /// Leave the account.
    Retain,
}

/// The link a person opens.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkSpec {
    /// How many new links are made after one expired unused (a link lives ten minutes). After that a person has to ask
    /// for one with the annotation composio-operator.dev/requested-at.
    #[serde(default = "default_renewals")]
    #[schemars(range(min = 0, max = 100))]
    pub renewals: i32,

    /// Where the link is put. Secret: key `url` of the Secret `<name>-link`. Status: status.link.redirectUrl. Whoever can
    /// read the link can attach their own Reddit account, so prefer the Secret.
    #[serde(default)]
    pub publish: LinkPublication,
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            renewals: default_renewals(),
            publish: LinkPublication::default(),
        }
    }
}

/// Where a link is put.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum LinkPublication {
    /// In the Secret `<name>-link`.
    #[default]
    Secret,
    /// In `status.link.redirectUrl`.
    Status,
}

/// How often Composio is asked, as Go durations such as `4s` or `1m30s`.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PollingSpec {
    /// Interval while a person is expected to finish, from 1s to 1h.
    #[serde(default = "default_fast")]
    #[schemars(with = "String", length(max = 32), extend("default" = "4s"))]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')").message("polling.fast must be a duration such as 4s or 1m30s, between 1s and 1h"))]
    pub fast: Duration,

    /// How long after the link was made the fast interval holds, up to 24h.
    #[serde(default = "default_fast_for")]
    #[schemars(with = "String", length(max = 32), extend("default" = "2m"))]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) <= duration('24h')").message("polling.fastFor must be a duration such as 2m or 1m30s, at most 24h"))]
    pub fast_for: Duration,

    /// Interval after that, from 1s to 24h.
    #[serde(default = "default_slow")]
    #[schemars(with = "String", length(max = 32), extend("default" = "30s"))]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("polling.slow must be a duration such as 30s or 1m30s, between 1s and 24h"))]
    pub slow: Duration,

    /// Interval once nothing is expected to change, from 1s to 24h.
    #[serde(default = "default_settled")]
    #[schemars(with = "String", length(max = 32), extend("default" = "5m"))]
    #[x_kube(validation = Rule::new(r"self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("polling.settled must be a duration such as 5m or 1m30s, between 1s and 24h"))]
    pub settled: Duration,
}

impl Default for PollingSpec {
    fn default() -> Self {
        Self {
            fast: default_fast(),
            fast_for: default_fast_for(),
            slow: default_slow(),
            settled: default_settled(),
        }
    }
}

fn default_true() -> bool {
    true
}

fn default_renewals() -> i32 {
    3
}

fn default_fast() -> Duration {
    std::time::Duration::from_secs(4).into()
}

fn default_fast_for() -> Duration {
    std::time::Duration::from_mins(2).into()
}

fn default_slow() -> Duration {
    std::time::Duration::from_secs(30).into()
}

fn default_settled() -> Duration {
    std::time::Duration::from_mins(5).into()
}

/// What is known about the account.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": UNOBSERVED}))]
pub struct RedditConnectionStatus {
    /// Generation of the spec this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// pending: a person has to finish the link. connected: the account is ACTIVE. disconnected: disabled, revoked or
    /// gone. error: failed or expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ConnectionState>,

    /// Status of the account in Composio's own words, such as INITIATED or ACTIVE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_status: Option<String>,

    /// Composio's reason for that status, if it gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,

    /// Auth config the link was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_config_id: Option<String>,

    /// Id of the account at Composio (`ca_...`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_account_id: Option<String>,

    /// true while connectedAccountId is an account that existed before and was adopted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub adopted: bool,

    /// true while the operator keeps the account disabled, because of spec.enabled or expectedUsername.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled_by_operator: bool,

    /// How many links were started for this object in all. Part of the alias that makes each of them unique.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub link_attempts: i64,

    /// How many of spec.link.renewals are used up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub link_renewals: i64,

    /// How many links were opened since somebody connected or asked for a link. A link may be opened by a mail scanner:
    /// it does not prove a person.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub links_opened: i64,

    /// The API key that connectedAccountId was last seen with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyStatus>,

    /// The account of this object that the next link takes the place of, until it is cleaned up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<ReplacedAccount>,

    /// The link that waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkStatus>,

    /// An account whose creation was not answered may still appear until then. After that it is looked for once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered_until: Option<Time>,

    /// Reddit user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,

    /// Address of the Reddit profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_url: Option<String>,

    /// Address of the profile picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,

    /// When the account was first seen ACTIVE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<Time>,

    /// Progress of the identity look-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityStatus>,

    /// Last token of the annotation composio-operator.dev/requested-at that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_request_at: Option<String>,

    /// Failures in a row. Kept here so that a restart does not forget how long to back off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryStatus>,

    /// Ready, Reconciling and Stalled after kstatus; Connected, Usable and `ReauthRequired` for this resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// Where the connection stands.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, IntoStaticStr, JsonSchema, PartialEq, Serialize, VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum ConnectionState {
    /// A person has to finish the link.
    Pending,
    /// The account is ACTIVE.
    Connected,
    /// Disabled, revoked or gone.
    Disconnected,
    /// Failed or expired.
    Error,
}

managed_fields!(RedditConnectionSpec, RedditConnectionStatus, ConnectionState);

/// Which API key an account was seen with. Another key may belong to another project, which does not show the account.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyStatus {
    /// The beginning of the key's SHA-256, in hexadecimal.
    #[schemars(length(max = 64))]
    pub fingerprint: String,

    /// Where the key was. Absent: it was the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
}

/// An account whose place a new link takes.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplacedAccount {
    /// Its id at Composio.
    #[schemars(length(max = 256))]
    pub id: String,

    /// The API key it was last seen with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyStatus>,
}

/// The link that waits for a person. Its `Debug` output leaves the link itself out.
#[derive(Clone, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// When the link was asked for.
    pub requested_at: Time,

    /// When the link stops working.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,

    /// When somebody, or something, was first seen to have opened the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Time>,

    /// How often Composio has said that the alias of this link is taken, without showing the account that has it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub alias_refusals: i64,

    /// Secret that holds the link under the key `url` (spec.link.publish Secret).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// The link itself (spec.link.publish Status). Whoever can read it can attach an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_url: Option<String>,
}

impl std::fmt::Debug for LinkStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkStatus")
            .field("requested_at", &self.requested_at)
            .field("expires_at", &self.expires_at)
            .field("opened_at", &self.opened_at)
            .field("alias_refusals", &self.alias_refusals)
            .field("secret_name", &self.secret_name)
            .field("redirect_url", &self.redirect_url.as_ref().map(|_| "[redacted]"))
            .finish()
    }
}

/// Progress of the identity look-up. It is best effort: a failure never takes `connected` away.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityStatus {
    /// When the last look-up ended that brought something new.
    pub last_attempt_at: Time,

    /// Since when look-ups fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Time>,

    /// Why the last look-up did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub last_error: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands over a reference
fn is_false(value: &bool) -> bool {
    !*value
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands over a reference
fn is_zero(value: &i64) -> bool {
    *value == 0
}
