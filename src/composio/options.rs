//! Where Composio is and how patiently it is called.

use std::time::Duration;

use reqwest::Url;

use super::Error;

/// Settings of the client that are the same for every API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Scheme, host and optional path of the server. `https` unless the host is this machine: the API key travels
    /// in a header of every request.
    pub base_url: String,
    /// Path of the API version below the base URL, with a leading slash.
    pub api_prefix: String,
    /// How long one connection attempt may take.
    pub connect_timeout: Duration,
    /// How long one request may take, from the first byte sent to the last byte read.
    pub request_timeout: Duration,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            base_url: "https://backend.composio.dev".to_owned(),
            api_prefix: "/api/v3.1".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            user_agent: concat!("composio-operator/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl ClientOptions {
    /// Says whether these settings can be used, without connecting to anything.
    ///
    /// # Errors
    /// [`Error::InvalidOptions`] names the first setting that cannot be used.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.endpoint().map(drop)
    }

    /// The URL that every path of the API is appended to; it never ends in a slash.
    pub(super) fn endpoint(&self) -> Result<Url, Error> {
        // A URL that is refused is not repeated in the message: it may carry a password.
        let invalid = |message: &str| Error::InvalidOptions {
            message: message.to_owned(),
        };
        let base = Url::parse(&self.base_url).map_err(|error| invalid(&format!("base URL: {error}")))?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(invalid("base URL: must not contain credentials"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(invalid("base URL: must not contain a query or a fragment"));
        }
        match base.scheme() {
            "https" => {}
            "http" if is_loopback(&base) => {}
            "http" => {
                return Err(invalid(
                    "base URL: must use https unless the host is a loopback address",
                ));
            }
            _ => return Err(invalid("base URL: must use https")),
        }
        let prefix = self.api_prefix.trim_end_matches('/');
        if !(prefix.is_empty() || prefix.starts_with('/')) || prefix.contains(['?', '#', ' ', '\\']) {
            return Err(invalid("API prefix: must be a path that begins with a slash"));
        }
        if self.connect_timeout.is_zero() || self.request_timeout.is_zero() {
            return Err(invalid("timeouts: must be longer than zero"));
        }
        if reqwest::header::HeaderValue::from_str(&self.user_agent).is_err() {
            return Err(invalid("user agent: must be printable ASCII"));
        }
        let path = format!("{}{prefix}", base.path().trim_end_matches('/'));
        let mut endpoint = base;
        endpoint.set_path(&path);
        Ok(endpoint)
    }

    /// Whether only `https` may be spoken with these settings.
    pub(super) fn https_only(&self) -> bool {
        !self
            .base_url
            .trim_start()
            .to_ascii_lowercase()
            .starts_with("http:")
    }
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_base(base_url: &str) -> ClientOptions {
        ClientOptions {
            base_url: base_url.to_owned(),
            ..ClientOptions::default()
        }
    }

    #[test]
    fn production_is_the_default_and_valid() {
        let endpoint = ClientOptions::default().endpoint().unwrap();
        assert_eq!(endpoint.as_str(), "https://backend.composio.dev/api/v3.1");
    }

    #[test]
    fn a_path_in_the_base_url_stays_in_front_of_the_prefix() {
        let endpoint = with_base("https://gateway.example/composio/").endpoint().unwrap();
        assert_eq!(endpoint.as_str(), "https://gateway.example/composio/api/v3.1");
    }

    #[test]
    fn plain_http_is_for_loopback_hosts_only() {
        for good in [
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "http://localhost:9900",
            "http://127.8.0.1",
        ] {
            assert_eq!(with_base(good).validate(), Ok(()), "{good}");
        }
        for bad in [
            "http://backend.composio.dev",
            "http://10.0.0.1",
            "http://localhost.example",
        ] {
            assert!(with_base(bad).validate().is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_queries_and_other_schemes_are_refused_without_repeating_them() {
        for bad in [
            "https://me:hunter2@x.dev",
            "https://x.dev/?hunter2=1",
            "https://x.dev/#hunter2",
            "ftp://hunter2",
        ] {
            let error = with_base(bad).validate().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        assert!(with_base("backend.composio.dev").validate().is_err());
    }

    #[test]
    fn prefix_and_timeouts_are_checked() {
        for prefix in ["api/v3", "/api?x", "/a b"] {
            assert!(
                ClientOptions {
                    api_prefix: prefix.to_owned(),
                    ..ClientOptions::default()
                }
                .validate()
                .is_err()
            );
        }
        let instant = ClientOptions {
            request_timeout: Duration::ZERO,
            ..ClientOptions::default()
        };
        assert!(instant.validate().is_err());
    }
}
