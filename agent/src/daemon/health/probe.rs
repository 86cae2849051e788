//! One check of one backend.

use std::{io, net::SocketAddr, pin::pin};

use http_body_util::Empty;
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::cluster::{Probe, ProbeKind};

/// Checks a backend, from the node; an error says why it fails.
pub(super) async fn check(backend: SocketAddr, probe: &Probe) -> Result<(), String> {
    let result = timeout(probe.timeout, async {
        let stream = TcpStream::connect(backend).await.map_err(|error| reason(&error))?;
        match &probe.kind {
            ProbeKind::Tcp => Ok(()),
            ProbeKind::Http { path } => get(stream, backend, path).await,
        }
    });
    result.await.unwrap_or_else(|_| Err(format!("no answer within {:?}", probe.timeout)))
}

async fn get(stream: TcpStream, backend: SocketAddr, path: &str) -> Result<(), String> {
    let failed = |error: hyper::Error| format!("no answer to GET {path}: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get(path)
        .header(HOST, backend.to_string())
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    // The connection does the work; both end with this check, before the body is read.
    let mut response = pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut response => response,
        // The server closed it at once; it may have answered before.
        _ = connection => response.await,
    };
    let response = response.map_err(failed)?;
    match response.status() {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(format!("GET {path}: {status}")),
    }
}

/// Without the number that Rust adds.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    fn probe(kind: ProbeKind) -> Probe {
        let timeout = Duration::from_millis(500);
        Probe { kind, interval: timeout, timeout, failures: 1, successes: 1 }
    }

    /// A server that reads a request and says `answer`; empty: nothing.
    async fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                if !answer.is_empty() {
                    assert!(request[..length].starts_with(b"GET /ready?x=1 HTTP/1.1\r\n"));
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    continue;
                }
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        });
        address
    }

    async fn get(answer: &'static str) -> Result<(), String> {
        let http = probe(ProbeKind::Http { path: "/ready?x=1".into() });
        check(server(answer).await, &http).await
    }

    #[tokio::test]
    async fn a_backend_that_listens_passes_and_one_that_does_not_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();

        assert_eq!(check(address, &probe(ProbeKind::Tcp)).await, Ok(()));
        drop(listener);
        assert_eq!(check(address, &probe(ProbeKind::Tcp)).await, Err("connection refused".to_owned()));
    }

    #[tokio::test]
    async fn the_status_of_an_answer_decides() {
        assert_eq!(get("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await, Ok(()));
        assert_eq!(get("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await, Ok(()));
        assert_eq!(
            get("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await,
            Err("GET /ready?x=1: 503 Service Unavailable".to_owned())
        );
        assert!(get("SSH-2.0-OpenSSH\r\n\r\n").await.is_err());
    }

    #[tokio::test]
    async fn silence_is_a_failure_after_the_timeout() {
        assert_eq!(get("").await, Err("no answer within 500ms".to_owned()));
    }
}
