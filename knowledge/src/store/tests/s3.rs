//! An S3 server of this process, on the loopback interface, over a temporary folder.

use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpRequest};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::store::Root;

pub(crate) struct Server {
    _folder: TempDir,
    port: u16,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("knowledge")).unwrap();
        let files = s3s_fs::FileSystem::new(folder.path()).unwrap();
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single("someone", "something"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(serve(listener, service.build()));
        Self {
            _folder: folder,
            port,
            serving,
        }
    }

    /// The bucket, by URL, as an operator would name it.
    pub(crate) fn root(&self) -> Root {
        let options = [
            ("aws_endpoint", format!("http://127.0.0.1:{}", self.port)),
            ("aws_allow_http", "true".into()),
            ("aws_region", "us-east-1".into()),
            ("aws_access_key_id", "someone".into()),
            ("AWS_SECRET_ACCESS_KEY", "something".into()),
            ("HOME", "settings of others are passed over".into()),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value));
        Root::open("s3://knowledge/some/place", options).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    let writing = Arc::new(Mutex::new(()));
    while let Ok((connection, _)) = listener.accept().await {
        let (service, writing) = (service.clone(), Arc::clone(&writing));
        let answer = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (service, writing) = (service.clone(), Arc::clone(&writing));
            async move {
                let request: HttpRequest = request.map(Body::from);
                // This server looks whether there is a file, and then writes it. Real ones do both at once, so its puts
                // come one by one.
                let alone = request.method() == hyper::Method::PUT;
                let _alone = if alone { Some(writing.lock().await) } else { None };
                service.call(request).await
            }
        });
        tokio::spawn(async move {
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(connection), answer)
                .await;
        });
    }
}
