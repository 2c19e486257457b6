//! The outcome of passing a request to its handler, and the faults applied to the response.

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::Value;

/// The response of a handler, or the refusal of a request that did not reach one.
pub(super) struct Delivery {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) reached_handler: bool,
}

impl Delivery {
    pub(super) fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response
    }

    pub(super) fn rewritten(mut self, change: impl FnOnce(Value) -> Value) -> Self {
        if self.status.is_success()
            && let Ok(response) = serde_json::from_slice(&self.body)
        {
            self.body = Bytes::from(change(response).to_string());
        }
        self
    }

    pub(super) fn cut_in_half(mut self) -> Self {
        self.body = self.body.slice(..self.body.len() / 2);
        self
    }

    /// Announces the whole body and breaks off in the middle.
    pub(super) fn aborted(self) -> Response {
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

/// A response of a gateway in between: it has no request id and no rate-limit headers.
pub(super) fn gateway_response(status: u16, body: Option<&str>, content_type: Option<&str>) -> Response {
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
