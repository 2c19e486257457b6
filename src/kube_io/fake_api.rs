//! A `kube::Client` whose requests are answered by a function, for tests of single calls.

use std::future::Future;
use std::io;

use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// One request as the API server would see it; `body` is null if there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub method: String,
    pub path: String,
    pub query: String,
    pub content_type: String,
    pub body: Value,
}

/// Status code and JSON body, or a broken connection.
pub type Answer = io::Result<(u16, Value)>;

pub fn client<F, Fut>(answer: F) -> Client
where
    F: Fn(Call) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Answer> + Send,
{
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            let call = Call {
                method: head.method.to_string(),
                path: head.uri.path().to_owned(),
                query: head.uri.query().unwrap_or_default().to_owned(),
                content_type: head
                    .headers
                    .get("content-type")
                    .map_or(String::new(), |v| v.to_str().unwrap().to_owned()),
                body: if bytes.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_slice(&bytes).unwrap()
                },
            };
            let (status, body) = answer(call).await?;
            io::Result::Ok(
                http::Response::builder()
                    .status(status)
                    .body(Body::from(body.to_string().into_bytes()))
                    .unwrap(),
            )
        }
    });
    Client::new(service, "default")
}

/// A failure in the words of the API server.
pub fn failure(code: u16, reason: &str) -> (u16, Value) {
    let message = format!("test: {reason}");
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    (code, status)
}
