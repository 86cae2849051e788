//! The binary as a user meets it: what it prints, and its exit status. An agent is played by a thread.

mod agent;
mod change;
mod general;
mod get;
mod observe;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
};

use serde_json::json;
use weir::{
    cluster::Name,
    protocol::{
        self, BackendReport, Change, Changed, ChangedObject, Column, Connection, ConnectionFilter,
        Connections, Decider, Difference, Effect, Event, Failure, FailureKind, Filter, FlowDifference,
        HealthChange, Kind, Listing, ObjectDifference, Observation, Outcome, Owner, OwnerKind, Party,
        PolicyName, PolicyReport, Request, Response, RingChange, Row, RuleCounts, RuleReport, ServiceReport,
        Setting, Simulation, Slots, State, Status, Verdict,
    },
    source::Source,
};

const DENY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: demo}
spec: {podSelector: {}}
";

struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.file("deny.yaml", DENY);
        host
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// An agent that answers as told, for as long as the test runs.
    fn agent(&self, node: &str, answer: impl Fn(Request) -> Response + Send + 'static) {
        let state = self.path().join("run").join(node);
        fs::create_dir_all(&state).unwrap();
        let listener = UnixListener::bind(state.join(protocol::SOCKET)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = Vec::new();
                BufReader::new(&stream).read_until(b'\n', &mut line).unwrap();
                let response = answer(protocol::decode(&line).unwrap());
                stream.write_all(&protocol::encode(&response).unwrap()).unwrap();
            }
        });
    }

    fn weir(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(args)
            .current_dir(self.path())
            .env("WEIR_RUN_DIR", self.path().join("run"))
            .output()
            .unwrap()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn created(revision: u64) -> Response {
    let object = "networkpolicy.networking.k8s.io/demo/deny".to_owned();
    Response::Changed(Changed {
        revision,
        objects: vec![ChangedObject { object, outcome: Outcome::Created }],
    })
}
