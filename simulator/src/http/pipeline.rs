//! The middleware around every API handler: latency, faults, the key check, the rate limit and the call log.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody as _, to_bytes},
    extract::{MatchedPath, OriginalUri, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::Response,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    ApiVersion, Caller,
    delivery::{Delivery, gateway_response},
    errors::ApiError,
    paging,
};
use crate::{
    calls::{Call, logged_body},
    config::{Access, Area},
    core::Core,
    faults::{ActiveFault, Fault, RequestParts},
    ids,
    limiter::{Quota, WINDOW_SECONDS},
};

/// Largest request body, in bytes.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// The organization of requests without a valid key: they count against no limit.
const NOBODY: &str = "";

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

/// Handles one request; see the module's documentation.
pub(crate) async fn handle(
    State((core, version)): State<(Arc<Core>, ApiVersion)>,
    request: Request,
    next: Next,
) -> Response {
    let (arrived, began) = (core.clock.now(), Instant::now());
    let (parts, body) = request.into_parts();
    let request_id = parts
        .headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty());
    let request_id = request_id.map_or_else(ids::uuid, str::to_owned);
    let refuse = |error: &ApiError| refusal(&request_id, error, core.quota(NOBODY)).into_response();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let body = if announced > MAX_BODY {
        None
    } else {
        to_bytes(body, MAX_BODY).await.ok()
    };
    let Some(body) = body else {
        return refuse(&ApiError::payload_too_large());
    };
    let exchange = Exchange {
        version,
        arrived,
        route: route(&parts, version),
        path: original_path(&parts).to_owned(),
        request_id: request_id.clone(),
        parts,
        body,
        next,
    };
    // A task of its own, because Composio finishes a request also when its client disconnects.
    let finished = tokio::spawn({
        let core = Arc::clone(&core);
        async move { exchange.run(&core).await }
    });
    let finished = finished.await;
    // The second half of the latency includes the time that handling took.
    if !core.latency.is_zero() {
        tokio::time::sleep_until(began + core.latency).await;
    }
    match finished {
        Ok(Outgoing { response, hold: None }) => response,
        Ok(Outgoing {
            response,
            hold: Some(mut released),
        }) => {
            tokio::select! {
                // The channel closes with an error when the rule is removed, which releases the request too.
                _ = released.wait_for(|released| *released) => response,
                () = core.ended() => hang_up(),
            }
        }
        Err(panic) => {
            tracing::error!(%panic, "a handler failed");
            refuse(&ApiError::internal())
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

/// A request and what is known about it.
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

/// A response, and the condition for sending it.
struct Outgoing {
    response: Response,
    /// The response is sent when this turns true.
    hold: Option<watch::Receiver<bool>>,
}

impl Exchange {
    async fn run(self, core: &Core) -> Outgoing {
        // A sleep of zero would still wait for the next millisecond.
        if !core.latency.is_zero() {
            tokio::time::sleep(core.latency / 2).await;
        }
        let active = core.faults.choose(&RequestParts {
            method: self.parts.method.as_str(),
            path: &self.path,
            query: self.parts.uri.query().unwrap_or_default(),
            body: &self.body,
        });
        let Some(active) = active else {
            let delivery = self.deliver(core, None).await;
            let executions = u8::from(delivery.reached_handler);
            let response = delivery.into_response();
            self.log(core, Some(&response), executions, None);
            return Outgoing { response, hold: None };
        };
        tracing::debug!(
            fault = <&str>::from(&active.fault),
            path = self.path,
            "fault applies"
        );
        self.run_faulty(core, active).await
    }

    async fn run_faulty(self, core: &Core, mut active: ActiveFault) -> Outgoing {
        let fault = &active.fault;
        let kind = Some(fault.into());
        match fault {
            Fault::Delay {
                millis,
                after_commit: false,
            } => {
                tokio::time::sleep(Duration::from_millis(*millis)).await;
            }
            Fault::Hang { before_commit: true } => {
                tokio::select! {
                    _ = active.released.wait_for(|released| *released) => {}
                    () = core.ended() => return Outgoing { response: hang_up(), hold: None },
                }
            }
            _ => {}
        }
        if let Some(response) = self.response_without_handler(core, fault) {
            self.log(core, Some(&response), 0, kind);
            return Outgoing { response, hold: None };
        }

        let first = self.deliver(core, Some(fault)).await;
        let mut executions = u8::from(first.reached_handler);
        let delivery = if *fault == Fault::Duplicate {
            let second = self.deliver(core, Some(fault)).await;
            executions += u8::from(second.reached_handler);
            second
        } else {
            first
        };

        let mut hold = None;
        let response = match fault {
            Fault::DropAfterCommit => hang_up(),
            Fault::Hang { before_commit: false } => {
                hold = Some(active.released);
                delivery.into_response()
            }
            Fault::Status {
                status,
                body,
                content_type,
                ..
            } => gateway_response(*status, body.as_deref(), content_type.as_deref()),
            Fault::TruncateJson => delivery.cut_in_half().into_response(),
            Fault::AbortBody => delivery.aborted(),
            fault => {
                let query = self.parts.uri.query().unwrap_or_default();
                let rewritten = delivery.rewritten(|response| fault.rewrite(query, response));
                rewritten.into_response()
            }
        };
        let sent = hold.is_none().then_some(&response);
        self.log(core, sent, executions, kind);
        if let Fault::Delay {
            millis,
            after_commit: true,
        } = fault
        {
            tokio::time::sleep(Duration::from_millis(*millis)).await;
        }
        Outgoing { response, hold }
    }

    /// The response where a fault keeps the request from its handler.
    fn response_without_handler(&self, core: &Core, fault: &Fault) -> Option<Response> {
        Some(match fault {
            Fault::DropBeforeCommit => hang_up(),
            Fault::Status {
                status,
                body,
                content_type,
                commit: false,
            } => gateway_response(*status, body.as_deref(), content_type.as_deref()),
            Fault::ApiError { status, message } => {
                let error = ApiError::injected(*status, message.as_deref());
                refusal(&self.request_id, &error, self.quota(core)).into_response()
            }
            Fault::RateLimited { retry_after } => {
                let limit = self.quota(core).map(|quota| quota.limit);
                let quota = Quota {
                    limit: limit.unwrap_or(crate::config::DEFAULT_RATE_LIMIT),
                    remaining: 0,
                    retry_after: Some(*retry_after),
                };
                self.refused_by_limiter(quota).into_response()
            }
            _ => return None,
        })
    }

    /// Checks key, limit and scope, and runs the handler if the request passes.
    async fn deliver(&self, core: &Core, fault: Option<&Fault>) -> Delivery {
        let key = self.api_key();
        let found = key.and_then(|key| core.key(key));
        let Some(found) = found else {
            let error = key.map_or_else(ApiError::missing_key, ApiError::invalid_key);
            return refusal(&self.request_id, &error, core.quota(NOBODY));
        };
        let quota = core.admit(&found.org);
        if let Some(quota) = quota.filter(|quota| quota.retry_after.is_some()) {
            return self.refused_by_limiter(quota);
        }
        if let Some((area, access)) = needed_scope(self.route.as_deref(), self.parts.method.as_str())
            && !found.scopes.allow(area, access)
        {
            return refusal(&self.request_id, &ApiError::missing_scope(area, access), quota);
        }
        let mut request = Request::from_parts(self.parts.clone(), Body::from(self.body.clone()));
        if let Some(uri) = fault.and_then(|fault| self.altered_uri(fault)) {
            *request.uri_mut() = uri;
        }
        request.extensions_mut().insert(Caller {
            project: found.project,
            version: self.version,
            default_key: found.scopes == crate::config::Scopes::Default,
        });
        let (mut parts, body) = self.next.clone().run(request).await.into_parts();
        if let Some(error) = parts.extensions.remove::<ApiError>() {
            return Delivery {
                reached_handler: self.route.is_some(),
                ..refusal(&self.request_id, &error, quota)
            };
        }
        // Handlers build their responses in memory, so collecting the body cannot fail.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        Delivery {
            status: parts.status,
            headers: with_common_headers(parts.headers, &self.request_id, quota),
            body,
            reached_handler: true,
        }
    }

    /// The URI the handler gets instead of the client's, for faults that change it.
    fn altered_uri(&self, fault: &Fault) -> Option<Uri> {
        let Fault::ShiftedPage { by } = fault else {
            return None;
        };
        let uri = &self.parts.uri;
        let query = paging::shifted(uri.query()?, *by)?;
        format!("{}?{query}", uri.path()).parse().ok()
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
        core.quota(key.map_or(NOBODY, |key| &key.org))
    }

    /// The 429 response, which has no error envelope.
    fn refused_by_limiter(&self, quota: Quota) -> Delivery {
        let message = format!(
            "Rate limit exceeded. Limit: {} requests per 1 minutes",
            quota.limit
        );
        let body = json!({"message": message});
        json_delivery(
            &self.request_id,
            StatusCode::TOO_MANY_REQUESTS,
            &body,
            Some(quota),
        )
    }

    /// `response`: absent if it is not sent yet.
    fn log(&self, core: &Core, response: Option<&Response>, executions: u8, fault: Option<&str>) {
        let response = response.filter(|response| response.extensions().get::<Hangup>().is_none());
        let status = response.map(|response| response.status().as_u16());
        // The size of a body is known, except where a fault breaks it off.
        let bytes = response.and_then(|response| response.body().size_hint().exact());
        let header = |name: HeaderName| {
            self.parts
                .headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        tracing::debug!(
            method = %self.parts.method,
            path = self.path,
            status,
            fault,
            "call"
        );
        let call = Call {
            seq: 0,
            time: self.arrived,
            method: self.parts.method.to_string(),
            path: self.path.clone(),
            route: self.route.clone(),
            query: self.parts.uri.query().unwrap_or_default().to_owned(),
            body: logged_body(&self.body),
            status,
            fault: fault.map(str::to_owned),
            executions,
            user_agent: header(header::USER_AGENT),
            key: self.api_key().map(ids::fingerprint),
            request_id: self.request_id.clone(),
        };
        core.calls.push(call, bytes.unwrap_or_default());
    }
}

/// A refusal in Composio's envelope.
fn refusal(request_id: &str, error: &ApiError, quota: Option<Quota>) -> Delivery {
    json_delivery(request_id, error.status, &error.render(request_id), quota)
}

fn json_delivery(request_id: &str, status: StatusCode, body: &Value, quota: Option<Quota>) -> Delivery {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Delivery {
        status,
        headers: with_common_headers(headers, request_id, quota),
        body: Bytes::from(body.to_string()),
        reached_handler: false,
    }
}

/// Adds what every API response carries: the request's id, and the state of the limit if there is one.
fn with_common_headers(mut headers: HeaderMap, request_id: &str, quota: Option<Quota>) -> HeaderMap {
    // The id came in a header or is a UUID, so it fits a header.
    if let Ok(id) = HeaderValue::from_str(request_id) {
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
