//! JSON bodies, checked by hand so that the errors name the place as Composio's do: `Error in payload.<path>: <what>`.

use axum::body::Bytes;
use serde_json::{Map, Value};

use super::errors::ApiError;
use crate::config::Assumptions;

/// A request's body. Paths are dotted: `connection.user_id`. Reading a field wrong collects an error;
/// [`Payload::finish`] returns all of them.
#[derive(Debug)]
pub(crate) struct Payload {
    root: Value,
    errors: Vec<String>,
}

impl Payload {
    /// `known`: the top-level keys this endpoint documents.
    pub(crate) fn parse(body: &Bytes, known: &[&str], assumptions: &Assumptions) -> Result<Self, ApiError> {
        let complaint = |what: &str| ApiError::validation(vec![format!("Error in payload: {what}")]);
        let root = if body.is_empty() {
            Value::Object(Map::new())
        } else {
            serde_json::from_slice(body).map_err(|_| complaint("Invalid JSON"))?
        };
        let Some(map) = root.as_object() else {
            return Err(complaint(&format!("Expected object, received {}", kind(&root))));
        };
        let unknown = |key: &&String| assumptions.reject_unknown_fields && !known.contains(&key.as_str());
        let errors = map
            .keys()
            .filter(unknown)
            .map(|key| format!("Error in payload: Unrecognized key(s) in object: '{key}'"))
            .collect();
        Ok(Self { root, errors })
    }

    /// The value there, unless absent or null.
    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        let value = path
            .split('.')
            .try_fold(&self.root, |value, key| value.get(key))?;
        (!value.is_null()).then_some(value)
    }

    fn typed<T>(&mut self, path: &str, expected: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.get(path)?;
        let read = read(value);
        if read.is_none() {
            let what = format!("Expected {expected}, received {}", kind(value));
            self.fail(path, &what);
        }
        read
    }

    pub(crate) fn string(&mut self, path: &str) -> Option<String> {
        self.typed(path, "string", |value| value.as_str().map(str::to_owned))
    }

    /// A string that must be there and not be empty. Empty after a complaint.
    pub(crate) fn required_string(&mut self, path: &str) -> String {
        self.require(path);
        let text = self.string(path);
        if text.as_deref() == Some("") {
            self.fail(path, "String must contain at least 1 character(s)");
        }
        text.unwrap_or_default()
    }

    pub(crate) fn boolean(&mut self, path: &str) -> Option<bool> {
        self.typed(path, "boolean", Value::as_bool)
    }

    /// A boolean that must be there. False after a complaint.
    pub(crate) fn required_boolean(&mut self, path: &str) -> bool {
        self.require(path);
        self.boolean(path).unwrap_or_default()
    }

    pub(crate) fn object(&mut self, path: &str) -> Option<Map<String, Value>> {
        self.typed(path, "object", |value| value.as_object().cloned())
    }

    /// An object that must be there. Empty after a complaint.
    pub(crate) fn required_object(&mut self, path: &str) -> Map<String, Value> {
        self.require(path);
        self.object(path).unwrap_or_default()
    }

    pub(crate) fn strings(&mut self, path: &str) -> Option<Vec<String>> {
        self.typed(path, "array of strings", |value| {
            value
                .as_array()?
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect()
        })
    }

    /// One of the names `allowed`.
    pub(crate) fn choice(&mut self, path: &str, allowed: &[&str]) -> Option<String> {
        let text = self.string(path)?;
        if allowed.contains(&text.as_str()) {
            return Some(text);
        }
        self.fail(path, &super::unexpected_choice(allowed, &text));
        None
    }

    /// An absolute http or https address.
    pub(crate) fn web_address(&mut self, path: &str) -> Option<String> {
        let text = self.string(path)?;
        let valid = url::Url::parse(&text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !valid {
            self.fail(path, "Invalid url");
        }
        valid.then_some(text)
    }

    pub(crate) fn require(&mut self, path: &str) {
        if self.get(path).is_none() {
            self.fail(path, "Required");
        }
    }

    pub(crate) fn fail(&mut self, path: &str, what: &str) {
        self.errors.push(format!("Error in payload.{path}: {what}"));
    }

    /// Returns every error collected so far.
    pub(crate) fn finish(&mut self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::validation(std::mem::take(&mut self.errors)))
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
