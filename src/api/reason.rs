//! Why something failed: a closed set of words, used in conditions, events and metrics alike.

use strum::{Display, EnumString, IntoStaticStr, VariantArray};

/// Why something failed. The name of a variant is the word that people see.
#[derive(Clone, Copy, Debug, Display, EnumString, Eq, Hash, IntoStaticStr, PartialEq, VariantArray)]
pub enum Reason {
    /// The Secret with the API key, or its key, does not exist.
    ApiKeyNotFound,
    /// The object names no Secret and the operator shares no key with its namespace.
    ApiKeyNotShared,
    /// Composio does not know the API key (401).
    ApiKeyRejected,
    /// The API key may not do this (403).
    ApiKeyForbidden,
    /// No enabled auth config for the toolkit.
    AuthConfigNotFound,
    /// More than one enabled auth config for the toolkit.
    AuthConfigAmbiguous,
    /// The account belongs to another auth config than the spec names.
    AuthConfigMismatch,
    /// The account belongs to another user id.
    UserMismatch,
    /// The account belongs to another toolkit.
    ToolkitMismatch,
    /// Composio holds the alias for an account that it does not list.
    AliasTaken,
    /// The Secret for the link exists and is not owned by the object.
    LinkSecretConflict,
    /// The link could not be stored.
    LinkNotStored,
    /// Composio refused to make a link.
    LinkRefused,
    /// Composio refused another request.
    RequestRefused,
    /// Too many requests; nothing is sent before the limit allows it.
    RateLimited,
    /// The operator's own share of the rate limit is used up: it goes on in its turn. Nothing was refused.
    WaitingForTurn,
    /// Composio does not answer, or answers with an error of its own.
    ComposioUnavailable,
    /// Composio's response cannot be understood.
    InvalidResponse,
    /// A ConfigMap of the name exists and is not owned by the object.
    ConfigMapConflict,
    /// The toolkit does not exist in Composio.
    ToolkitNotFound,
    /// Composio refused a request that is about one toolkit.
    ToolkitRefused,
    /// Composio listed no tools, or no toolkits, where there were some.
    EmptyResponse,
    /// Composio listed fewer than it said there are.
    IncompleteResponse,
    /// Composio accepted a change and does not show it.
    ChangeNotApplied,
    /// The Kubernetes API refused or failed.
    KubernetesApi,
    /// A reconcile took longer than it may.
    ReconcileTimedOut,
    /// A reconcile ended in a panic, which is a bug.
    ReconcilePanicked,
    /// A reconcile found no end of steps, which is a bug.
    TooManySteps,
    /// The object cannot be read by this version of the operator.
    InvalidObject,
}

impl Reason {
    /// Whether nothing is wrong: work only waits for its turn.
    pub fn is_progress(self) -> bool {
        self == Self::WaitingForTurn
    }

    /// The `PascalCase` word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
