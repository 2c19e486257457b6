//! One request and its quick retries: budget, headers, timeouts, and what each failure means.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::budget::{Budget, Permit, Priority, RateHeaders};
use super::excerpt::{EXCERPT_LIMIT, MESSAGE_LIMIT, excerpt, plain_text};
use super::wire::{Unreadable, error_body};
use super::{ClientOptions, Error, Surroundings};
use crate::redact::remote_text;

/// Bodies are kept in memory whole; the largest legitimate ones, pages of tool schemas, stay far below.
const LARGEST_BODY: u64 = 64 * 1024 * 1024;
/// Longest `Retry-After` that is respected. Some servers send a date there as seconds since 1970.
const LONGEST_WAIT: Duration = Duration::from_mins(15);
/// The operation of running a tool.
pub(super) const EXECUTE_TOOL: &str = "execute_tool";
/// How long a 401 counts.
const UNAUTHORIZED_FOR: Duration = Duration::from_mins(5);

/// One call of the API.
pub(super) struct Call {
    /// Name in metrics and logs, from a closed set.
    pub operation: &'static str,
    pub priority: Priority,
    pub method: Method,
    pub url: Url,
    pub body: Option<Vec<u8>>,
    /// Sending it twice does no harm, so that a lost answer may be asked for again.
    pub repeatable: bool,
}

/// Why a call failed, with what only the client needs to know.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: Error,
    /// Trying again at once may succeed.
    quick: bool,
    /// Composio itself may have written the body: it is not the HTML page of a proxy.
    pub from_composio: bool,
}

impl Failure {
    fn new(error: Error, quick: bool) -> Self {
        Self {
            error,
            quick,
            from_composio: false,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// Makes the HTTP client that the clients of all keys share: connections and certificates are held once.
pub(super) fn http_client(options: &ClientOptions) -> Result<reqwest::Client, Error> {
    let endpoint = options.endpoint()?;
    let mut builder = reqwest::Client::builder()
        .https_only(options.https_only())
        // A redirect would carry the key elsewhere, and no endpoint of the API redirects.
        .redirect(reqwest::redirect::Policy::none())
        // Retries are decided here, where it is known which calls may be repeated.
        .retry(reqwest::retry::never())
        .connect_timeout(options.connect_timeout)
        .timeout(options.request_timeout)
        .user_agent(&options.user_agent);
    if endpoint.scheme() == "http" {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|_| Error::InvalidOptions {
        message: "the HTTP client cannot be set up".to_owned(),
    })
}

/// Everything that the calls of one key share.
pub(super) struct Transport {
    http: reqwest::Client,
    endpoint: Url,
    key: SecretString,
    header: HeaderValue,
    pub(super) budget: Budget,
    surroundings: Arc<dyn Surroundings>,
    /// The last 401 of Composio and when it came, unless a call has succeeded since.
    unauthorized_since: Mutex<Option<(Instant, Error)>>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("endpoint", &self.endpoint.as_str())
            .finish_non_exhaustive()
    }
}

impl Transport {
    pub(super) fn new(
        options: &ClientOptions,
        http: reqwest::Client,
        key: SecretString,
        budget: Budget,
        surroundings: Arc<dyn Surroundings>,
    ) -> Result<Self, Error> {
        let exposed = key.expose_secret();
        if exposed.is_empty() || !exposed.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::InvalidKeyFormat);
        }
        let mut header = HeaderValue::from_str(exposed).map_err(|_| Error::InvalidKeyFormat)?;
        header.set_sensitive(true);
        let endpoint = options.endpoint()?;
        Ok(Self {
            http,
            endpoint,
            key,
            header,
            budget,
            surroundings,
            unauthorized_since: Mutex::new(None),
        })
    }

    /// The URL of a path below the endpoint. Segments are escaped, so that an id cannot reach another path.
    pub(super) fn url(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Url, Error> {
        let mut url = self.endpoint.clone();
        for segment in segments {
            // `push` drops dots silently, which would turn an object's path into its list's.
            if segment.is_empty() || matches!(*segment, "." | "..") {
                return Err(Error::InvalidRequest {
                    message: "an id must not be empty or consist of dots".to_owned(),
                });
            }
        }
        url.path_segments_mut()
            .map_err(|()| Error::InvalidOptions {
                message: "base URL: must have a host".to_owned(),
            })?
            .extend(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Text of the remote side without anything that grants access.
    pub(super) fn clean(&self, text: &str, limit: usize) -> String {
        remote_text(text, self.key.expose_secret(), limit)
    }

    /// See [`Client::unauthorized_since`](super::Client::unauthorized_since).
    pub(super) fn unauthorized_since(&self) -> Option<(Error, Duration)> {
        let newest = self
            .unauthorized_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (since, error) = newest.as_ref()?;
        let left = UNAUTHORIZED_FOR
            .checked_sub(since.elapsed())
            .filter(|left| !left.is_zero())?;
        Some((error.clone(), left))
    }

    pub(super) fn set_unauthorized(&self, error: Option<Error>) {
        *self
            .unauthorized_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = error.map(|error| (Instant::now(), error));
    }

    /// Makes a call and decodes its answer. A repeatable call is tried up to three times in quick succession.
    pub(super) async fn call<T>(
        &self,
        call: &Call,
        decode: impl Fn(&[u8]) -> Result<T, Unreadable>,
    ) -> Result<T, Failure> {
        if !call.repeatable {
            return self.attempt(call, &decode).await;
        }
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_times(2)
            .with_jitter();
        (|| self.attempt(call, &decode))
            .retry(pauses)
            .when(|failure: &Failure| failure.quick)
            .await
    }

    async fn attempt<T>(
        &self,
        call: &Call,
        decode: &impl Fn(&[u8]) -> Result<T, Unreadable>,
    ) -> Result<T, Failure> {
        let permit = self
            .budget
            .acquire(call.priority)
            .await
            .map_err(|error| Failure::new(error, false))?;
        if call.method != Method::GET && !self.surroundings.may_change() {
            return Err(Failure::new(Error::NotAllowed, false));
        }
        let started = Instant::now();
        let result = self.exchange(call, &permit, decode).await;
        let outcome = result
            .as_ref()
            .err()
            .map_or("ok", |failure| failure.error.outcome());
        self.surroundings.call(call.operation, outcome, started.elapsed());
        match &result {
            Ok(_) => self.set_unauthorized(None),
            Err(Failure { error, .. }) if error.is_unauthorized() => {
                self.set_unauthorized(Some(error.clone()));
            }
            Err(Failure { error, .. }) => {
                tracing::debug!(operation = call.operation, outcome, %error, "call to Composio failed");
            }
        }
        result
    }

    async fn exchange<T>(
        &self,
        call: &Call,
        permit: &Permit,
        decode: &impl Fn(&[u8]) -> Result<T, Unreadable>,
    ) -> Result<T, Failure> {
        let mut request = self
            .http
            .request(call.method.clone(), call.url.clone())
            .header("x-api-key", self.header.clone())
            .header(reqwest::header::ACCEPT, "application/json");
        if let Some(body) = &call.body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        let mut response = request
            .send()
            .await
            .map_err(|error| self.network_failure(error))?;
        let status = response.status();
        let rate = self.learn(permit, response.headers());
        let retry_after = retry_after(response.headers(), Timestamp::now());
        if status == StatusCode::TOO_MANY_REQUESTS {
            // Tools have limits of their own, which say nothing about other calls. The limit of all calls is at zero.
            let is_of_tools = call.operation == EXECUTE_TOOL && rate.remaining != Some(0);
            let class = is_of_tools.then_some(call.priority);
            self.budget.refused(retry_after, class);
        }
        let request_id = response
            .headers()
            .get("x-request-id")
            .and_then(|id| id.to_str().ok())
            .map(str::to_owned);
        let body = self.body(&mut response).await;
        if status.is_success() {
            let body = body?;
            return decode(&body).map_err(|unreadable| {
                let Unreadable { message, truncated } = unreadable;
                let excerpt = excerpt(&body, self.key.expose_secret());
                Failure::new(Error::Decode { message, excerpt }, truncated)
            });
        }
        // The status is the answer; a body that broke off only costs its explanation.
        Err(self.refusal(status, &body.unwrap_or_default(), request_id, retry_after))
    }

    /// Reports what the headers say about the limit to the budget and the process.
    fn learn(&self, permit: &Permit, headers: &HeaderMap) -> RateHeaders {
        let rate = RateHeaders::read(headers);
        if rate != RateHeaders::default() {
            self.budget.observe(permit, rate);
        }
        if let (Some(limit), Some(remaining)) = (rate.limit, rate.remaining) {
            self.surroundings.budget(limit, remaining);
        }
        rate
    }

    async fn body(&self, response: &mut Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        // A body that announces its size need not be read to be refused.
        let mut size = response.content_length();
        loop {
            if size.is_some_and(|size| size > LARGEST_BODY) {
                let message = format!("the body is larger than {} MiB", LARGEST_BODY / (1024 * 1024));
                return Err(Failure::new(
                    Error::Decode {
                        message,
                        excerpt: String::new(),
                    },
                    false,
                ));
            }
            let chunk = response.chunk().await;
            let Some(chunk) = chunk.map_err(|error| self.network_failure(error))? else {
                return Ok(body);
            };
            body.extend_from_slice(&chunk);
            size = Some(body.len() as u64);
        }
    }

    fn refusal(
        &self,
        status: StatusCode,
        body: &[u8],
        request_id: Option<String>,
        retry_after: Option<Duration>,
    ) -> Failure {
        let error_body = error_body(body);
        let message = match &error_body.message {
            Some(message) => self.clean(message, MESSAGE_LIMIT),
            None => self.clean(plain_text(&String::from_utf8_lossy(body)), EXCERPT_LIMIT),
        };
        let message = if message.is_empty() {
            status.canonical_reason().unwrap_or("no explanation").to_owned()
        } else {
            message
        };
        let label = |text: Option<String>| text.map(|text| self.clean(&text, 80));
        if !error_body.from_composio && is_refusal(status) {
            return Failure::new(
                Error::Gateway {
                    status: status.as_u16(),
                    message,
                },
                false,
            );
        }
        let error = Error::Http {
            status: status.as_u16(),
            code: label(error_body.code),
            slug: label(error_body.slug),
            message,
            request_id: label(error_body.request_id.or(request_id)),
            retry_after,
        };
        let quick = matches!(status.as_u16(), 408 | 502 | 503 | 504);
        Failure {
            error,
            quick,
            from_composio: error_body.from_composio,
        }
    }

    fn network_failure(&self, error: reqwest::Error) -> Failure {
        let error = error.without_url();
        if error.is_builder() {
            return Failure::new(
                Error::InvalidRequest {
                    message: "the request cannot be built".to_owned(),
                },
                false,
            );
        }
        if error.is_timeout() && !error.is_connect() {
            return Failure::new(Error::Timeout, true);
        }
        // The chain ends with what the operating system or TLS says, which is what a person needs.
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = cause.to_string();
            source = cause.source();
        }
        let message = self.clean(&message, MESSAGE_LIMIT);
        let error = if error.is_connect() {
            Error::Connect { message }
        } else {
            Error::Transport { message }
        };
        Failure::new(error, true)
    }
}

/// Whether a status refuses the request itself, so that it matters who says so.
fn is_refusal(status: StatusCode) -> bool {
    status.is_redirection()
        || (status.is_client_error()
            && !matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
            ))
}

/// `Retry-After` in seconds or as an HTTP date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_comes_in_seconds_or_as_a_date() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let table = [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sat, 21 Nov 2026 10:00:30 GMT", Some(30)),
            ("Sat, 21 Nov 2026 09:00:00 GMT", Some(0)),
            ("99999999999999999999", None),
            ("18446744073709551615", Some(900)),
            ("1771404540", Some(900)),
            ("4294967296", Some(900)),
            ("soon", None),
            ("-1", None),
        ];
        for (text, seconds) in table {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(
                retry_after(&headers, now),
                seconds.map(Duration::from_secs),
                "{text:?}"
            );
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
