//! Connections of the HTTP door: how many there may be, and how long one may take to say what it wants.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use crate::config::Limits;

/// How long the door waits before it accepts again when the system refuses: mostly no file descriptor is left.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves the routes on the listener until `end` says so, and what has begun to its end.
///
/// Past `connections_max` nobody is accepted until somebody has left. A connection that does not send the head of a request
/// within `request_read_timeout` is closed.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    end: oneshot::Receiver<()>,
) {
    let open = GracefulShutdown::new();
    tokio::select! {
        // It also ends when nobody can say so any more.
        _ = end => {}
        never = accept(&listener, router, limits, &open) => match never {},
    }
    drop(listener);
    open.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    router: Router,
    limits: &Limits,
    open: &GracefulShutdown,
) -> std::convert::Infallible {
    let service = TowerToHyperService::new(router);
    let places = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        // The semaphore is never closed.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection cannot be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.request_read_timeout)
            .serve_connection(TokioIo::new(stream), service.clone());
        let connection = open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP connection broke");
            }
            drop(place);
        });
    }
}
