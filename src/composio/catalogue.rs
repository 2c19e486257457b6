//! Toolkits and their tools, as the catalogue shows them. A text field that Composio left out is empty: unknown, not
//! wrong.

use serde_json::value::RawValue;

use super::model::AuthConfig;

/// One toolkit as the catalogue lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToolkitSummary {
    /// Unique, in lower snake case; may begin with `_`.
    pub slug: String,
    /// Display name.
    pub name: String,
    /// The newest version, `YYYYMMDD_NN`.
    pub version: Option<String>,
    /// When the toolkit last changed. The exact text, to be compared for equality only.
    pub updated_at: Option<String>,
    /// Its tools need neither auth config nor account.
    pub no_auth: bool,
    /// Composio says that the toolkit is deprecated. `false` where it says nothing: the documented list shows deprecated
    /// toolkits on request without marking them.
    pub deprecated: bool,
    /// Tools of the newest version. Two versions may have the same number, so that it does not show changes.
    pub tools_count: Option<u64>,
}

/// A toolkit in detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToolkitDetail {
    /// Unique, in lower snake case; may begin with `_`.
    pub slug: String,
    /// Display name.
    pub name: String,
    /// What the toolkit is for, in prose.
    pub description: String,
    /// Address of an image.
    pub logo: String,
    /// The version that this detail is about, `YYYYMMDD_NN`.
    pub version: Option<String>,
    /// When the toolkit last changed. The exact text, to be compared for equality only.
    pub updated_at: Option<String>,
    /// Address of the application behind the toolkit.
    pub app_url: Option<String>,
    /// Ways to authenticate, for example `OAUTH2` or `NO_AUTH`.
    pub auth_modes: Vec<String>,
    /// Slugs of the categories that the toolkit is filed under.
    pub categories: Vec<String>,
}

/// A tool with its schemas. These are kept as the text that Composio sent, unread: they are large, and not always valid
/// JSON Schema.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Unique, case-sensitive, for example `GITHUB_CREATE_AN_ISSUE`. It does not show the toolkit.
    pub slug: String,
    /// Display name.
    pub name: String,
    /// What the tool does, in prose.
    pub description: String,
    /// The toolkit that the tool belongs to.
    pub toolkit: ToolToolkit,
    /// Version of the toolkit that the schemas are of, `YYYYMMDD_NN`.
    pub version: Option<String>,
    /// JSON Schema of the arguments; `{}` if Composio sent none.
    pub input_parameters: Box<RawValue>,
    /// JSON Schema of the result with its `data`, `error` and `successful`; `{}` if Composio sent none.
    pub output_parameters: Box<RawValue>,
    /// Hints and categories, for example `readOnlyHint`, in the order sent.
    pub tags: Vec<String>,
    /// OAuth scopes that the tool needs, in the order sent.
    pub scopes: Vec<String>,
    /// Needs no account.
    pub no_auth: bool,
    /// May be removed in a later version.
    pub is_deprecated: bool,
}

/// What a tool says about its toolkit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolToolkit {
    /// Slug of the toolkit.
    pub slug: String,
    /// Display name of the toolkit.
    pub name: String,
    /// Address of an image.
    pub logo: String,
}

/// Which tools to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToolQuery {
    /// Slug of the toolkit.
    pub toolkit: String,
    /// Version of the toolkit, `YYYYMMDD_NN`. `None`: the latest.
    pub version: Option<String>,
    /// Deprecated tools as well.
    pub include_deprecated: bool,
}

/// The auth configs of a project that new accounts can be made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnabledAuthConfigs {
    /// Those that could be read.
    pub configs: Vec<AuthConfig>,
    /// How many others there are, enabled or not: with any of them, a config's absence proves nothing.
    pub missing: usize,
    /// How many pages were read.
    pub pages: usize,
}
