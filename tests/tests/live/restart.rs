//! Agents that end and start again (attack test 13).

use std::{fs, path::Path};

use weir_tests::live::{
    Live, apply, isolated, kernel, manifests,
    traffic::{Connection, Echo, Sender, Sink},
};

const PORT: u16 = 7000;

/// What flows before, while and after the agents are away.
struct Traffic {
    allowed: Vec<(Sender, &'static str)>,
    denied: Vec<(Sender, &'static str)>,
    server: Sink,
    far: Sink,
    connections: Vec<Connection>,
    _echoes: [Echo; 2],
}

impl Traffic {
    fn start(live: &Live) -> Self {
        let echoes = ["server", "far"].map(|pod| Echo::open(live.netns(pod), PORT));
        let (server, far) = (Sink::open(live.netns("server"), PORT), Sink::open(live.netns("far"), PORT));
        let send = |from: &str, to: &'static str| {
            live.at(to, PORT).map(|target| (Sender::start(live.netns(from), target), to))
        };
        let open =
            |from: &str, to: &str| live.at(to, PORT).map(|target| Connection::open(live.netns(from), target));
        let traffic = Self {
            allowed: [send("client", "server"), send("client", "far")].into_iter().flatten().collect(),
            denied: [send("denied", "server"), send("denied", "far")].into_iter().flatten().collect(),
            connections: [open("client", "server"), open("client", "far")].into_iter().flatten().collect(),
            server,
            far,
            _echoes: echoes,
        };
        traffic.flow();
        traffic
    }

    /// Lets every flow have its turn.
    fn flow(&self) {
        self.allowed.iter().chain(&self.denied).for_each(|(sender, _)| sender.advance(50));
    }

    fn connections_live(&mut self) {
        assert!(self.connections.iter_mut().all(Connection::is_alive));
    }

    fn finish(self) {
        let Self { mut allowed, mut denied, server, far, .. } = self;
        let sink = |to| if to == "server" { &server } else { &far };
        allowed.iter_mut().for_each(|(sender, to)| sender.finish_whole(sink(*to)));
        denied.iter_mut().for_each(|(sender, to)| sender.finish_empty(sink(*to)));
    }
}

fn survives_restarts(options: &[&str]) {
    let mut live = Live::with_options(&manifests::cluster(), options);
    let mut traffic = Traffic::start(&live);
    let maps = kernel::pinned().maps;
    let revision = live.revision();
    for _ in 0..5 {
        for agent in live.agents.values_mut() {
            agent.kill();
        }
        traffic.flow();
        traffic.connections_live();
        // New connections are decided by what stayed in the kernel.
        assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);
        assert_eq!(live.reaches("denied", &["server"]), [""; 0]);
        for agent in live.agents.values_mut() {
            agent.restart();
        }
        traffic.flow();
        traffic.connections_live();
    }
    assert_eq!(live.revision(), revision);
    assert_eq!(kernel::pinned().maps, maps, "the maps are adopted, not made anew");
    apply(&manifests::ingress("client", "client", &["far"])).done();
    assert_eq!(live.revision(), revision + 1);
    assert_eq!(live.reaches("denied", &["client"]), [""; 0]);
    traffic.finish();
}

#[test]
fn killed_and_restarted_agents_let_nothing_through_and_lose_nothing() {
    isolated(|| survives_restarts(&[]));
}

#[test]
fn the_same_holds_with_filters_of_a_clsact_qdisc() {
    isolated(|| survives_restarts(&["--attach-mode", "clsact"]));
}

#[test]
fn an_agent_that_is_asked_to_end_leaves_everything_enforced() {
    isolated(|| {
        let mut live = Live::start(&manifests::cluster());
        let traffic = Traffic::start(&live);
        for agent in live.agents.values_mut() {
            assert!(agent.terminate().success());
        }
        traffic.flow();
        assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);
        assert_eq!(live.reaches("denied", &["server"]), [""; 0]);
        traffic.finish();
    });
}

#[test]
fn a_pin_of_another_shape_is_refused_and_what_is_attached_goes_on() {
    isolated(|| {
        let mut live = Live::start(&manifests::cluster());
        live.agent("node-1").kill();
        // A pin of the right name that leads to another map.
        let maps = Path::new(kernel::BPFFS).join("weir/node-1/v1/maps");
        let names: Vec<_> = kernel::walk(&maps);
        let (one, other) = (names.first().unwrap(), names.last().unwrap());
        let aside = maps.join("aside");
        fs::rename(one, &aside).unwrap();
        aya::maps::MapData::from_pin(other).unwrap().pin(one).unwrap();

        let status = live.agent("node-1").refuse();

        assert_eq!(status.code(), Some(5));
        let log = live.agent("node-1").log();
        assert!(log.contains(one.to_str().unwrap()), "the message names the pin:\n{log}");
        assert_eq!(live.reaches("client", &["server", "far"]), ["server", "far"]);
        assert_eq!(live.reaches("denied", &["server"]), [""; 0]);

        fs::rename(&aside, one).unwrap();
        live.agent("node-1").restart();
        assert_eq!(live.agent("node-1").problems(), [""; 0]);
    });
}
