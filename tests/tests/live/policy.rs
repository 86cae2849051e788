//! Policies that change under live flows (attack tests 14 and 15).

use weir_tests::live::{
    Live, apply, delete, isolated,
    manifests::{self, ingress},
    traffic::{Connection, Echo, Sender, Sink},
};

const PORT: u16 = 7000;

#[test]
fn a_new_deny_cuts_established_flows_at_once_and_no_others() {
    isolated(|| {
        let live = Live::start(&manifests::cluster());
        let (server, far) = (Sink::open(live.netns("server"), PORT), Sink::open(live.netns("far"), PORT));
        let _echoes = ["server", "far"].map(|pod| Echo::open(live.netns(pod), PORT));
        let mut cut = live.at("server", PORT).map(|to| Sender::start(live.netns("client"), to));
        let mut whole = live.at("far", PORT).map(|to| Sender::start(live.netns("client"), to));
        let mut into_server = live.at("server", PORT).map(|to| Connection::open(live.netns("client"), to));
        let mut into_far = live.at("far", PORT).map(|to| Connection::open(live.netns("client"), to));
        cut.iter().chain(&whole).for_each(|sender| sender.advance(50));
        assert!(into_server.iter_mut().chain(&mut into_far).all(Connection::is_alive));

        let (open, closed) =
            (ingress("server", "server", &["client", "far"]), ingress("server", "server", &["far"]));
        apply(&closed).done();
        let from = cut.each_ref().map(Sender::sent);
        cut.iter().for_each(|sender| sender.advance(200));
        assert!(into_server.iter_mut().all(Connection::is_cut));
        assert!(into_far.iter_mut().all(Connection::is_alive));
        let to = cut.each_ref().map(Sender::sent);
        apply(&open).done();
        let again = cut.each_ref().map(Sender::sent);
        cut.iter().for_each(|sender| sender.advance(100));

        for (family, sender) in cut.iter_mut().enumerate() {
            sender.finish();
            let arrived = server.from(sender);
            let leaked: Vec<_> = arrived.range(from[family] + 1..=to[family]).collect();
            assert!(leaked.is_empty(), "after the deny: {leaked:?}");
            assert!(
                (again[family] + 1..=sender.sent()).all(|number| arrived.contains(&number)),
                "open again"
            );
        }
        whole.iter_mut().for_each(|sender| sender.finish_whole(&far));
        // What TCP could not say meanwhile, it says again.
        assert!(
            live.at("server", PORT)
                .into_iter()
                .all(|to| Connection::open(live.netns("client"), to).is_alive())
        );
    });
}

#[test]
fn a_deleted_deny_restores_what_it_cut() {
    isolated(|| {
        let live = Live::start(&manifests::cluster());
        let client = Sink::open(live.netns("client"), PORT);
        let senders = live.at("client", PORT).map(|to| Sender::start(live.netns("denied"), to));
        senders.iter().for_each(|sender| sender.advance(20));
        let deny = ingress("nobody", "client", &[]);
        apply(&deny).done();
        assert_eq!(live.reaches("denied", &["client"]), [""; 0]);
        delete(&deny).done();
        let from = senders.each_ref().map(Sender::sent);
        senders.iter().for_each(|sender| sender.advance(100));
        assert_eq!(live.reaches("denied", &["client"]), ["client"]);
        for (mut sender, from) in senders.into_iter().zip(from) {
            let sent = sender.finish();
            let arrived = client.from(&sender);
            assert!((from + 1..=sent).all(|number| arrived.contains(&number)));
        }
    });
}

#[test]
fn swapping_policies_under_load_never_shows_a_state_between_them() {
    isolated(|| {
        let live = Live::start(&[manifests::cluster(), manifests::pod("always", 1, 40)].concat());
        // `always` is in both versions, `denied` in neither.
        let versions = ["client", "far"].map(|peer| ingress("server", "server", &[peer, "always"]));
        apply(&versions[1]).done();
        let server = Sink::open(live.netns("server"), PORT);
        let start = |from: &str| live.at("server", PORT).map(|to| Sender::start(live.netns(from), to));
        let (mut always, mut never) = (start("always"), start("denied"));
        let mut either = ["client", "far"].map(start);
        // The numbers between which a sender was in the version in force, and out of it.
        let mut spans: [Vec<(bool, u64, u64)>; 2] = Default::default();
        for swap in 0..200 {
            let version = swap % 2;
            apply(&versions[version]).done();
            let from = either.each_ref().map(|senders| senders[0].sent());
            // Not every time: swaps must also follow one another closely.
            if swap % 10 == 9 {
                either.iter().for_each(|senders| senders[0].advance(20));
            }
            for (sender, spans) in spans.iter_mut().enumerate() {
                spans.push((sender == version, from[sender] + 1, either[sender][0].sent()));
            }
        }
        always.iter_mut().for_each(|sender| sender.finish_whole(&server));
        never.iter_mut().for_each(|sender| sender.finish_empty(&server));
        for (senders, spans) in either.iter_mut().zip(&spans) {
            for sender in senders.iter_mut() {
                sender.finish();
            }
            let arrived = server.from(&senders[0]);
            for &(allowed, from, to) in spans {
                let wrong: Vec<_> =
                    (from..=to).filter(|number| arrived.contains(number) != allowed).collect();
                assert!(wrong.is_empty(), "allowed {allowed}, {from} to {to}: {wrong:?}");
            }
        }
    });
}
