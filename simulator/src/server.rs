//! The HTTP server. It has its own accept loop, because a fault may close a connection without a response, which axum's
//! does not support.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::ServiceExt as _;

use crate::{core::Core, http::Hangup};

/// How long running requests may take once the simulator ends.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until the simulator ends; then finishes the running requests.
pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(Arc::clone(&core), stream, router.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: give connections time to end instead of spinning.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = core.ended() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(core: Arc<Core>, stream: TcpStream, router: Router) {
    // Small responses must not wait for acknowledgements; if this fails they are only slower.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let response = match router.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if response.extensions().get::<Hangup>().is_some() {
                // An error of the service makes hyper close the connection without a response.
                return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
            }
            Ok(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // Errors come from clients that disconnect and from injected faults.
        _ = connection.as_mut() => {}
        () = core.ended() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GRACE, connection).await;
        }
    }
}
