//! The services behind Composio, as far as the simulator implements them: what a tool returns when it is executed.

pub(crate) mod codeinterpreter;
pub(crate) mod hackernews;
pub(crate) mod reddit;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::catalogue::{INITIAL_VERSION, Tool, Toolkit};

/// How the provider treats one account. Composio does not notice: the account stays ACTIVE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum ProviderMode {
    /// The provider responds normally.
    #[default]
    Ok,
    /// The person withdrew the grant at the provider; tools fail with `invalid_grant`.
    RevokedAtProvider,
    /// The person's account is suspended: its profile is a name and `is_suspended`.
    Suspended,
    /// The provider responds with 503.
    Down,
    /// The provider responds after a delay.
    Slow {
        /// In milliseconds of real time.
        #[serde(default = "five_seconds")]
        millis: u64,
    },
}

const fn five_seconds() -> u64 {
    5_000
}

/// Who a tool acts for.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) username: String,
    pub(crate) mode: ProviderMode,
}

/// A tool execution that passed Composio's own checks.
#[derive(Debug)]
pub(crate) struct Execution<'a> {
    pub(crate) toolkit: &'a Toolkit,
    pub(crate) tool: &'a Tool,
    pub(crate) version: &'a str,
    pub(crate) arguments: &'a Map<String, Value>,
    /// Absent for tools that need no account.
    pub(crate) actor: Option<Actor>,
    /// Whether a user of that name exists at the provider, besides the actor.
    pub(crate) other_user_exists: bool,
    pub(crate) now: Timestamp,
}

/// The result of an execution.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The tool succeeded.
    Done(Value),
    /// The tool failed, which Composio reports with HTTP 200.
    Failed { error: String, data: Value },
    /// The tool exists, but the simulator does not implement it.
    NotSimulated,
}

impl Outcome {
    /// A failure of the provider, worded as Composio passes them on.
    pub(crate) fn http_error(status: u16, reason: &str, url: &str, body: &Value) -> Self {
        let kind = if status < 500 { "Client" } else { "Server" };
        let http_error = format!("{status} {kind} Error: {reason} for url: {url}");
        Self::Failed {
            error: format!("{http_error} - {body}"),
            data: json!({"http_error": http_error, "status_code": status, "message": body.to_string()}),
        }
    }
}

impl Execution<'_> {
    /// Runs the tool.
    pub(crate) fn run(&self) -> Outcome {
        if let Some(error) = self.argument_error() {
            return Outcome::Failed {
                error,
                data: json!({}),
            };
        }
        let outcome = match self.toolkit.slug.as_str() {
            "reddit" => reddit::run(self),
            "hackernews" => hackernews::run(self),
            "codeinterpreter" => codeinterpreter::run(self),
            _ => Outcome::NotSimulated,
        };
        match outcome {
            // The initial version of every tool wraps its result once more.
            Outcome::Done(data) if self.version == INITIAL_VERSION => {
                Outcome::Done(json!({"response_data": data}))
            }
            other => other,
        }
    }

    /// An argument as text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).and_then(Value::as_str)
    }

    /// An argument as a number, or the schema's default.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let given = self.arguments.get(name).filter(|value| !value.is_null());
        let default = || self.tool.input().properties.get(name)?.get("default")?.as_u64();
        given.map_or_else(default, Value::as_u64)
    }

    /// How the arguments violate the tool's schema.
    fn argument_error(&self) -> Option<String> {
        let absent = |name: &&String| self.arguments.get(*name).is_none_or(Value::is_null);
        let input = self.tool.input();
        let missing: Vec<_> = input
            .required
            .iter()
            .filter(absent)
            .map(|name| format!("'{name}'"))
            .collect();
        if !missing.is_empty() {
            return Some(format!(
                "Invalid request data provided\n- Following fields are missing: {{{}}}",
                missing.join(", ")
            ));
        }
        self.arguments.iter().find_map(|(name, value)| {
            let expected = input.properties.get(name)?["type"].as_str()?;
            let fits = match expected {
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                _ => true,
            };
            (!fits && !value.is_null()).then(|| {
                format!("Invalid request data provided\n- Input should be a valid {expected} on parameter `{name}`")
            })
        })
    }
}
