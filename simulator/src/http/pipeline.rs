//! What surrounds every API handler: latency, faults, the key check, the rate limit and the call log.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{MatchedPath, OriginalUri, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{ApiVersion, Caller, errors::ApiError};
use crate::{
    calls::{Call, logged_body},
    config::{Access, Area},
    core::Core,
    faults::{Facts, Fault, Fired},
    ids,
    limiter::{Quota, WINDOW_SECONDS},
};

/// Largest request body, in bytes.
const MAX_BODY: usize = 8 * 1024 * 1024;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const WINDOW: HeaderName = HeaderName::from_static("x-ratelimit-window-size");

/// Marks a response that must not be sent: the server closes the connection instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hangup;

fn hang_up() -> Response {
    let mut response = Response::default();
    response.extensions_mut().insert(Hangup);
    response
}

/// Runs a request through everything; see the module's documentation.
pub(crate) async fn handle(
    State((core, version)): State<(Arc<Core>, ApiVersion)>,
    request: Request,
    next: Next,
) -> Response {
    let arrived = core.clock.now();
    let (parts, body) = request.into_parts();
    let too_large = || ApiError::payload_too_large().render("").to_string();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return (
            StatusCode::PAYLOAD_TOO_LARGE,
            [(header::CONTENT_TYPE, "application/json")],
            too_large(),
        )
            .into_response();
    };
    let id = parts
        .headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let exchange = Exchange {
        version,
        arrived,
        route: route(&parts, version),
        path: original_path(&parts).to_owned(),
        request_id: id.filter(|id| !id.is_empty()).unwrap_or_else(ids::uuid),
        parts,
        body,
        next,
    };
    // In a task of its own: Composio finishes a request whose client went away, and so does this.
    let finished = tokio::spawn({
        let core = Arc::clone(&core);
        async move { exchange.run(&core).await }
    });
    match finished.await {
        Ok(Outgoing { response, hold: None }) => response,
        Ok(Outgoing {
            response,
            hold: Some(mut released),
        }) => {
            tokio::select! {
                // An error says the rule was removed, which releases as well.
                _ = released.wait_for(|released| *released) => response,
                () = core.ended() => hang_up(),
            }
        }
        Err(panic) => {
            tracing::error!(%panic, "a handler failed");
            let body = ApiError::internal().render("").to_string();
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                [(header::CONTENT_TYPE, "application/json")],
                body,
            )
                .into_response()
        }
    }
}

/// The path as the client sent it; routing has taken the version prefix off the request's own.
fn original_path(parts: &Parts) -> &str {
    parts
        .extensions
        .get::<OriginalUri>()
        .map_or_else(|| parts.uri.path(), |original| original.0.path())
}

fn route(parts: &Parts, version: ApiVersion) -> Option<String> {
    let matched = parts.extensions.get::<MatchedPath>()?;
    matched.as_str().strip_prefix(version.prefix()).map(str::to_owned)
}

/// A request on its way through.
struct Exchange {
    version: ApiVersion,
    arrived: Timestamp,
    route: Option<String>,
    path: String,
    request_id: String,
    parts: Parts,
    body: Bytes,
    next: Next,
}

/// What to send, and when.
struct Outgoing {
    response: Response,
    /// Not before this turns true.
    hold: Option<watch::Receiver<bool>>,
}

/// One delivery of the request to its handler, or the reason it did not get there.
struct Delivery {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    reached_handler: bool,
}

impl Exchange {
    async fn run(self, core: &Core) -> Outgoing {
        tokio::time::sleep(core.latency).await;
        let fired = core.faults.choose(&Facts {
            method: self.parts.method.as_str(),
            path: &self.path,
            query: self.parts.uri.query().unwrap_or_default(),
            body: &self.body,
        });
        let Some(fired) = fired else {
            let delivery = self.deliver(core).await;
            self.log(
                core,
                Some(delivery.status),
                u8::from(delivery.reached_handler),
                None,
            );
            return Outgoing {
                response: delivery.into_response(),
                hold: None,
            };
        };
        tracing::debug!(fault = fired.fault.kind(), path = self.path, "fault applies");
        self.run_faulty(core, fired).await
    }

    async fn run_faulty(self, core: &Core, mut fired: Fired) -> Outgoing {
        let fault = &fired.fault;
        let kind = Some(fault.kind());
        match fault {
            Fault::Delay {
                millis,
                after_commit: false,
            } => {
                tokio::time::sleep(Duration::from_millis(*millis)).await;
            }
            Fault::Hang { before_commit: true } => {
                tokio::select! {
                    _ = fired.released.wait_for(|released| *released) => {}
                    () = core.ended() => return Outgoing { response: hang_up(), hold: None },
                }
            }
            Fault::DropBeforeCommit => {
                self.log(core, None, 0, kind);
                return Outgoing {
                    response: hang_up(),
                    hold: None,
                };
            }
            Fault::Status {
                status,
                body,
                content_type,
                commit: false,
            } => {
                let response = gateway_answer(*status, body.as_deref(), content_type.as_deref());
                self.log(core, Some(response.status()), 0, kind);
                return Outgoing { response, hold: None };
            }
            Fault::RateLimited { retry_after } => {
                let quota = Quota {
                    limit: self
                        .quota(core)
                        .map_or(crate::config::DEFAULT_RATE_LIMIT, |quota| quota.limit),
                    remaining: 0,
                    retry_after: Some(*retry_after),
                };
                let delivery = self.refused_by_limiter(quota);
                self.log(core, Some(delivery.status), 0, kind);
                return Outgoing {
                    response: delivery.into_response(),
                    hold: None,
                };
            }
            _ => {}
        }

        let first = self.deliver(core).await;
        let mut executions = u8::from(first.reached_handler);
        let delivery = if *fault == Fault::Duplicate {
            let second = self.deliver(core).await;
            executions += u8::from(second.reached_handler);
            second
        } else {
            first
        };

        let (response, hold) = match fault {
            Fault::DropAfterCommit => (None, None),
            Fault::Hang { before_commit: false } => (Some(delivery.into_response()), Some(fired.released)),
            Fault::Status {
                status,
                body,
                content_type,
                ..
            } => (
                Some(gateway_answer(*status, body.as_deref(), content_type.as_deref())),
                None,
            ),
            Fault::TruncateJson => (Some(delivery.cut_in_half().into_response()), None),
            Fault::AbortBody => (Some(delivery.aborted()), None),
            fault => {
                let query = self.parts.uri.query().unwrap_or_default();
                (
                    Some(
                        delivery
                            .rewritten(|answer| fault.rewrite(query, answer))
                            .into_response(),
                    ),
                    None,
                )
            }
        };
        let answered = response.as_ref().filter(|_| hold.is_none()).map(Response::status);
        self.log(core, answered, executions, kind);
        if let Fault::Delay {
            millis,
            after_commit: true,
        } = fault
        {
            tokio::time::sleep(Duration::from_millis(*millis)).await;
        }
        Outgoing {
            response: response.unwrap_or_else(hang_up),
            hold,
        }
    }

    /// Checks key, limit and scope, and runs the handler if they admit the request.
    async fn deliver(&self, core: &Core) -> Delivery {
        let key = self.api_key();
        let found = key.and_then(|key| core.key(key));
        let Some(found) = found else {
            let error = key.map_or_else(ApiError::missing_key, ApiError::invalid_key);
            return self.refused(&error, None);
        };
        let quota = core.admit(&found.org);
        if let Some(quota) = quota.filter(|quota| quota.retry_after.is_some()) {
            return self.refused_by_limiter(quota);
        }
        if let Some((area, access)) = needed_scope(self.route.as_deref(), self.parts.method.as_str())
            && !found.scopes.allow(area, access)
        {
            let access = if access == Access::Read { "read" } else { "write" };
            return self.refused(&ApiError::missing_scope(area.as_str(), access), quota);
        }
        let mut request = Request::from_parts(self.parts.clone(), Body::from(self.body.clone()));
        request.extensions_mut().insert(Caller {
            project: found.project,
            version: self.version,
            default_key: found.scopes == crate::config::Scopes::Default,
        });
        let (mut parts, body) = self.next.clone().run(request).await.into_parts();
        if let Some(error) = parts.extensions.remove::<ApiError>() {
            return Delivery {
                reached_handler: self.route.is_some(),
                ..self.refused(&error, quota)
            };
        }
        // Handlers answer from memory, so collecting cannot fail.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        Delivery {
            status: parts.status,
            headers: self.headers(parts.headers, quota),
            body,
            reached_handler: true,
        }
    }

    fn api_key(&self) -> Option<&str> {
        self.parts
            .headers
            .get(API_KEY)
            .and_then(|key| key.to_str().ok())
            .filter(|key| !key.is_empty())
    }

    fn quota(&self, core: &Core) -> Option<Quota> {
        let key = self.api_key().and_then(|key| core.key(key));
        core.quota(key.map_or("", |key| &key.org))
    }

    fn refused(&self, error: &ApiError, quota: Option<Quota>) -> Delivery {
        self.json(error.status, &error.render(&self.request_id), quota)
    }

    /// Flat, unlike every other refusal.
    fn refused_by_limiter(&self, quota: Quota) -> Delivery {
        let message = format!(
            "Rate limit exceeded. Limit: {} requests per 1 minutes",
            quota.limit
        );
        self.json(
            StatusCode::TOO_MANY_REQUESTS,
            &json!({"message": message}),
            Some(quota),
        )
    }

    fn json(&self, status: StatusCode, body: &Value, quota: Option<Quota>) -> Delivery {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Delivery {
            status,
            headers: self.headers(headers, quota),
            body: Bytes::from(body.to_string()),
            reached_handler: false,
        }
    }

    fn headers(&self, mut headers: HeaderMap, quota: Option<Quota>) -> HeaderMap {
        // The id came in a header or is a UUID, so it fits a header.
        if let Ok(id) = HeaderValue::from_str(&self.request_id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(quota) = quota {
            headers.insert(LIMIT, quota.limit.into());
            headers.insert(REMAINING, quota.remaining.into());
            if let Ok(window) = HeaderValue::from_str(&format!("{WINDOW_SECONDS}s")) {
                headers.insert(WINDOW, window);
            }
            if let Some(seconds) = quota.retry_after {
                headers.insert(header::RETRY_AFTER, seconds.into());
            }
        }
        headers
    }

    fn log(&self, core: &Core, status: Option<StatusCode>, executions: u8, fault: Option<&str>) {
        let header = |name: HeaderName| {
            self.parts
                .headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        tracing::debug!(
            method = %self.parts.method,
            path = self.path,
            status = status.map(|status| status.as_u16()),
            fault,
            "call"
        );
        core.calls.push(Call {
            seq: 0,
            time: self.arrived,
            method: self.parts.method.to_string(),
            path: self.path.clone(),
            route: self.route.clone(),
            query: self.parts.uri.query().unwrap_or_default().to_owned(),
            body: logged_body(&self.body),
            status: status.map(|status| status.as_u16()),
            fault: fault.map(str::to_owned),
            executions,
            user_agent: header(header::USER_AGENT),
            key: self.api_key().map(ids::fingerprint),
            request_id: self.request_id.clone(),
        });
    }
}

impl Delivery {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response
    }

    fn rewritten(mut self, change: impl FnOnce(Value) -> Value) -> Self {
        if self.status.is_success()
            && let Ok(answer) = serde_json::from_slice(&self.body)
        {
            self.body = Bytes::from(change(answer).to_string());
        }
        self
    }

    fn cut_in_half(mut self) -> Self {
        self.body = self.body.slice(..self.body.len() / 2);
        self
    }

    /// Announces the whole body and breaks off in the middle.
    fn aborted(self) -> Response {
        let announced = self.body.len();
        let half = self.body.slice(..announced / 2);
        let mut response = self.into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, announced.into());
        let cut = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
        *response.body_mut() = Body::from_stream(futures::stream::iter([Ok(half), Err(cut)]));
        response
    }
}

/// An answer that did not come from Composio: no request id, no rate-limit headers.
fn gateway_answer(status: u16, body: Option<&str>, content_type: Option<&str>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let page = || {
        let title = format!(
            "{} {}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default()
        );
        format!(
            "<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"
        )
    };
    let content_type = HeaderValue::from_str(content_type.unwrap_or("text/html"))
        .unwrap_or(HeaderValue::from_static("text/html"));
    (
        status,
        [(header::CONTENT_TYPE, content_type)],
        body.map_or_else(page, str::to_owned),
    )
        .into_response()
}

/// The right a scoped key needs for a route; `None` where there is no such route.
fn needed_scope(route: Option<&str>, method: &str) -> Option<(Area, Access)> {
    let route = route?;
    let area = match route.split('/').nth(1)? {
        "auth_configs" => Area::AuthConfigs,
        "connected_accounts" => Area::ConnectedAccounts,
        "toolkits" => Area::Toolkits,
        "tools" if route == "/tools/execute/proxy" => Area::ProxyExecute,
        "tools" if route.starts_with("/tools/execute/") => Area::ToolExecution,
        "tools" => Area::Tools,
        _ => return None,
    };
    Some((
        area,
        if method == "GET" {
            Access::Read
        } else {
            Access::Write
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_demand_their_scope() {
        let table = [
            (
                "/connected_accounts",
                "GET",
                Area::ConnectedAccounts,
                Access::Read,
            ),
            (
                "/connected_accounts/link",
                "POST",
                Area::ConnectedAccounts,
                Access::Write,
            ),
            (
                "/auth_configs/{id}/{status}",
                "PATCH",
                Area::AuthConfigs,
                Access::Write,
            ),
            ("/toolkits/multi", "POST", Area::Toolkits, Access::Write),
            ("/tools/{slug}", "GET", Area::Tools, Access::Read),
            (
                "/tools/execute/{slug}",
                "POST",
                Area::ToolExecution,
                Access::Write,
            ),
            (
                "/tools/execute/{slug}/input",
                "POST",
                Area::ToolExecution,
                Access::Write,
            ),
            ("/tools/execute/proxy", "POST", Area::ProxyExecute, Access::Write),
        ];
        for (route, method, area, access) in table {
            assert_eq!(
                needed_scope(Some(route), method),
                Some((area, access)),
                "{method} {route}"
            );
        }
        assert_eq!(needed_scope(None, "GET"), None);
    }
}
