//! Query strings as Composio reads them: comma-joined or repeated arrays, lenient numbers, strict enums.

use url::form_urlencoded;

use super::errors::ApiError;

/// The parameters of a request. Reading one wrong collects an error; [`Query::finish`] returns all of them.
#[derive(Debug)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    errors: Vec<String>,
}

impl Query {
    pub(crate) fn parse(raw: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(raw.unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
        Self {
            pairs,
            errors: Vec::new(),
        }
    }

    /// The parameter, unless absent or empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.pairs
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.clone())
    }

    /// Every value of an array, whether joined by commas or by repeating the key.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let values = self
            .pairs
            .iter()
            .filter(|(key, _)| key == name)
            .flat_map(|(_, value)| value.split(','));
        values
            .map(str::trim)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// The entries of a bracketed map, as in `toolkit_versions[reddit]=latest`.
    pub(crate) fn map(&self, name: &str) -> Vec<(String, String)> {
        let key_of = |key: &str| {
            key.strip_prefix(name)?
                .strip_prefix('[')?
                .strip_suffix(']')
                .map(str::to_owned)
        };
        self.pairs
            .iter()
            .filter_map(|(key, value)| Some((key_of(key)?, value.clone())))
            .collect()
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        match self.text(name)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                self.fail(name, &format!("Expected boolean, received \"{other}\""));
                None
            }
        }
    }

    /// A whole number; clients may write it with a fraction of zero.
    pub(crate) fn number(&mut self, name: &str, least: usize, most: usize) -> Option<usize> {
        let text = self.text(name)?;
        let whole = text.strip_suffix(".0").unwrap_or(&text);
        match whole.parse::<usize>() {
            Ok(number) if number < least => {
                self.fail(name, &format!("Number must be greater than or equal to {least}"));
            }
            Ok(number) if number > most => {
                self.fail(name, &format!("Number must be less than or equal to {most}"));
            }
            Ok(number) => return Some(number),
            Err(_) => self.fail(name, &format!("Expected number, received \"{text}\"")),
        }
        None
    }

    /// One of the names `allowed`.
    pub(crate) fn choice(&mut self, name: &str, allowed: &[&str]) -> Option<String> {
        let text = self.text(name)?;
        self.check_choice(name, &text, allowed).then_some(text)
    }

    /// An array of the names `allowed`.
    pub(crate) fn choices(&mut self, name: &str, allowed: &[&str]) -> Vec<String> {
        let values = self.list(name);
        for (index, value) in values.iter().enumerate() {
            self.check_choice(&format!("{name}.{index}"), value, allowed);
        }
        values
    }

    fn check_choice(&mut self, place: &str, value: &str, allowed: &[&str]) -> bool {
        let ok = allowed.contains(&value);
        if !ok {
            self.fail(place, &super::unexpected_choice(allowed, value));
        }
        ok
    }

    pub(crate) fn fail(&mut self, name: &str, what: &str) {
        self.errors.push(format!("Error in query.{name}: {what}"));
    }

    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::validation(self.errors))
        }
    }
}
