//! The socket's limits.

use tokio::io::AsyncReadExt as _;

use super::*;
use crate::protocol::{Event, Observation, Verdict};

/// A server whose agent answers every request with an empty listing.
async fn served(limits: Limits) -> (tempfile::TempDir, Arc<EventLog>) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::bind(directory.path(), limits).unwrap();
    let (commands, mut received) = mpsc::channel::<Command>(1);
    let events = Arc::new(EventLog::with_room(2));
    tokio::spawn(server.serve(commands, Arc::clone(&events)));
    tokio::spawn(async move {
        while let Some(command) = received.recv().await {
            drop(command.answer.send(Response::Listing(protocol::Listing::default())));
        }
    });
    (directory, events)
}

async fn ask(directory: &tempfile::TempDir, bytes: &[u8]) -> Option<Response> {
    let mut stream = BufReader::new(UnixStream::connect(directory.path().join(SOCKET)).await.unwrap());
    let _ = stream.write_all(bytes).await;
    let mut line = Vec::new();
    timeout(Duration::from_secs(5), stream.read_until(b'\n', &mut line)).await.unwrap().unwrap();
    (!line.is_empty()).then(|| protocol::decode(&line).unwrap())
}

fn observation(time: &str, verdict: Verdict) -> Event {
    Event::Packet(Box::new(Observation {
        time: time.to_owned(),
        verdict,
        reason: None,
        explanation: None,
        protocol: None,
        source: None,
        destination: None,
        backend: None,
        egress: None,
        ingress: None,
    }))
}

fn short() -> Limits {
    Limits { request: 1000, patience: Duration::from_millis(200), clients: 4 }
}

#[tokio::test]
async fn a_request_is_answered() {
    let (directory, _) = served(short()).await;
    let request = protocol::encode(&Request::Status).unwrap();

    assert!(matches!(ask(&directory, &request).await, Some(Response::Listing(_))));
}

#[tokio::test]
async fn an_oversized_request_is_refused_and_its_legal_twin_is_not() {
    let (directory, _) = served(short()).await;
    let mut legal = protocol::encode(&Request::Status).unwrap();
    legal.splice(0..0, vec![b' '; 1000 - legal.len()]);
    let mut oversized = legal.clone();
    oversized.insert(0, b' ');

    assert!(matches!(ask(&directory, &legal).await, Some(Response::Listing(_))));
    let refused = ask(&directory, &oversized).await;

    assert!(
        matches!(refused, Some(Response::Failed(Failure { kind: FailureKind::Usage, message })) if message.contains("1000 bytes"))
    );
}

#[tokio::test]
async fn a_client_that_never_ends_its_request_is_cut_off() {
    let (directory, _) = served(short()).await;

    let refused = ask(&directory, b"{\"version\":1").await;

    assert!(
        matches!(refused, Some(Response::Failed(Failure { message, .. })) if message.contains("not complete"))
    );
}

#[tokio::test]
async fn slow_clients_do_not_delay_others() {
    let (directory, _) = served(Limits { patience: Duration::from_secs(60), ..short() }).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = UnixStream::connect(directory.path().join(SOCKET)).await.unwrap();
        stream.write_all(b"{").await.unwrap();
        slow.push(stream);
    }

    let request = protocol::encode(&Request::Status).unwrap();

    assert!(matches!(ask(&directory, &request).await, Some(Response::Listing(_))));
}

#[tokio::test]
async fn garbage_and_other_versions_are_refused() {
    let (directory, _) = served(short()).await;
    for line in ["GET / HTTP/1.1\r\n", "{\"version\":999,\"body\":\"status\"}\n"] {
        let answer = ask(&directory, line.as_bytes()).await;
        assert!(matches!(answer, Some(Response::Failed(Failure { kind: FailureKind::Usage, .. }))), "{line}");
    }
}

#[tokio::test]
async fn the_socket_is_for_its_owner_alone() {
    let (directory, _) = served(short()).await;
    let metadata = std::fs::metadata(directory.path().join(SOCKET)).unwrap();

    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777, 0o600);
    assert!(
        may_command(0, 1000) && may_command(1000, 1000) && !may_command(1001, 1000) && !may_command(1001, 0)
    );
}

#[tokio::test]
async fn an_observer_gets_the_events_it_wants_and_is_told_of_lost_ones() {
    let (directory, events) = served(short()).await;
    let mut stream = BufReader::new(UnixStream::connect(directory.path().join(SOCKET)).await.unwrap());
    let filter = Filter { verdict: Some(Verdict::Dropped), ..Filter::default() };
    stream
        .write_all(&protocol::encode(&Request::Observe { filter, last: 0, follow: true }).unwrap())
        .await
        .unwrap();
    while events.observers() == 0 {
        tokio::task::yield_now().await;
    }

    // There is room for two: the first is lost.
    for (time, verdict) in [("one", Verdict::Dropped), ("two", Verdict::Allowed), ("three", Verdict::Dropped)]
    {
        events.tell(observation(time, verdict));
    }

    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await.unwrap();
    assert!(matches!(protocol::decode(&line), Ok(Response::Missed(1))));
    line.clear();
    stream.read_until(b'\n', &mut line).await.unwrap();
    let Response::Observed(seen) = protocol::decode(&line).unwrap() else { panic!("not an event") };
    assert_eq!(*seen, observation("three", Verdict::Dropped));
    // The connection stays open for what comes next.
    assert!(timeout(Duration::from_millis(50), stream.read_u8()).await.is_err());
}

#[tokio::test]
async fn who_asks_for_the_last_events_alone_gets_them_and_the_end() {
    let (directory, events) = served(short()).await;
    for time in ["one", "two", "three"] {
        events.tell(observation(time, Verdict::Dropped));
    }
    let request = Request::Observe { filter: Filter::default(), last: 2, follow: false };
    let mut stream = BufReader::new(UnixStream::connect(directory.path().join(SOCKET)).await.unwrap());
    stream.write_all(&protocol::encode(&request).unwrap()).await.unwrap();

    let mut lines = Vec::new();
    timeout(Duration::from_secs(5), stream.read_to_end(&mut lines)).await.unwrap().unwrap();

    let seen: Vec<_> = lines
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| match protocol::decode(line) {
            Ok(Response::Observed(event)) => event.time().to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, ["two", "three"]);
}
