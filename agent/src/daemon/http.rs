//! Short answers over HTTP: what the agent's servers have in common.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tracing::{debug, warn};

/// Clients of one port at a time; more wait.
const CLIENTS: usize = 64;
/// How long a client may take to ask, and to ask again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that a request line and its headers may have.
const LONGEST_REQUEST: usize = 16 << 10;

/// What a client gets.
pub(super) type Answer = Response<Full<Bytes>>;

/// Answers whoever connects to `port`, which is called that in the log, for ever.
pub(super) async fn serve<F>(
    listener: TcpListener,
    port: &'static str,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                warn!(%error, "cannot accept a client of {port}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(request);
                async { Ok::<_, Infallible>(answer.await) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(LONGEST_REQUEST);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                debug!(%error, "a client of {port} went away");
            }
            drop(place);
        });
    }
}
