//! The kernel side on the running kernel: needs root, and the kernel programs that the build was made with.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use aya::programs::{SchedClassifier, TcAttachType};
use nix::sched::{CloneFlags, unshare};
use weir_common::{
    event::kind,
    reason::{HOOKS, Hook, REASONS},
    service::{flags, member},
    state::events,
};

use super::{
    AttachMode, Kernel, KernelError, Options, Program, XdpMode, detach_all, maps::Maps, pins::Pins, sys,
};
use crate::{
    cluster::{Action, Name},
    datapath::{Backend, Bits, Datapath, Endpoint, Frontend, Ring, Rule, RuleSet, Service},
    plan::{Interface, PerFamily, Sizes},
};

/// A network namespace with a veth pair `pod0`/`eth0` and another one `up0`/`up1`, and a place for pins; all gone
/// at the end.
fn in_namespace(test: impl FnOnce(&[u8], &Options) + Send + 'static) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let object =
        option_env!("WEIR_EBPF_OBJECT").and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
    if object.is_empty() {
        eprintln!("skipped: this build carries no kernel programs");
        return;
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let pins = PathBuf::from(format!("/sys/fs/bpf/weir-test-{}-{number}/node", std::process::id()));
    let options = Options {
        pins: pins.clone(),
        sizes: small(),
        log_level: 0,
        attach_mode: None,
        xdp_mode: XdpMode::Auto,
        events: 0,
    };
    let result = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
        ip("link add pod0 type veth peer name eth0");
        ip("link add up0 type veth peer name up1");
        test(&object, &options);
    })
    .join();
    let left = detach_all(&pins);
    assert!(left.is_empty(), "{left:?}");
    assert!(!pins.parent().unwrap().exists(), "pins are left");
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn small() -> Sizes {
    Sizes {
        endpoints: PerFamily { v4: 16, v6: 16 },
        identities: PerFamily { v4: 64, v6: 64 },
        rule_sets: 16,
        peers: 64,
        ports: 64,
        vectors: 64,
        rules: 64,
        rule_hits: 64,
        frontends: PerFamily { v4: 16, v6: 16 },
        rings: PerFamily { v4: 64, v6: 64 },
        members: PerFamily { v4: 64, v6: 64 },
        affinity: PerFamily { v4: 16, v6: 16 },
        sources: PerFamily { v4: 64, v6: 64 },
        flows: PerFamily { v4: 16, v6: 16 },
        fragments: PerFamily { v4: 64, v6: 64 },
        events: 4096,
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A pod at 10.0.0.1 and fd00::1 that 10.0.0.2 may reach, and a service of it.
fn datapath() -> Datapath {
    let mut datapath =
        Datapath { node: "a".into(), node_addresses: vec![address("192.0.2.1")], ..Datapath::default() };
    let name = Name { namespace: "test".into(), name: "pod".into() };
    for pod in ["10.0.0.1", "fd00::1"] {
        let endpoint = Endpoint { pod: name.clone(), ingress: Some(1), egress: None };
        datapath.endpoints.insert(address(pod), endpoint);
    }
    for (prefix, identity) in
        [("10.0.0.0/24", 16), ("10.0.0.2/32", 17), ("fd00::/64", 16), ("fd00::2/128", 17)]
    {
        datapath.identities.insert(prefix.parse().unwrap(), identity as u32);
    }
    let everything = || BTreeMap::from([(0, Bits(vec![0b11]))]);
    let rules = vec![
        Rule { action: Action::Accept, next: 0, id: 16 },
        Rule { action: Action::Deny, next: 0, id: 17 },
    ];
    let rule_set = RuleSet {
        next: None,
        rules,
        peers: BTreeMap::from([(17, Bits(vec![0b11]))]),
        default_peers: Bits(vec![0b10]),
        ports: std::array::from_fn(|_| everything()),
    };
    datapath.rule_sets.insert(1, rule_set);
    for (vip, pod) in [("10.96.0.1", "10.0.0.1"), ("fd01::1", "fd00::1")] {
        let backend = Backend { address: address(pod), port: 8080 };
        let internal = Arc::new(Ring { backends: vec![backend], slots: vec![0; 7] });
        let external = Arc::default();
        let members = Arc::new([(backend, member::SERVES | member::CLUSTER)].into());
        let service = Service {
            id: 1,
            name: name.clone(),
            flags: 0,
            internal,
            external,
            target_port: 0,
            members,
            source_ranges: Vec::new(),
            affinity: None,
        };
        datapath.frontends.insert(Frontend { address: address(vip), port: 80, protocol: 6 }, service);
    }
    datapath
}

/// The same, its services to be served at the edge.
fn asking_for_the_edge() -> Datapath {
    let mut datapath = datapath();
    let frontends: Vec<_> = datapath.frontends.iter().map(|(key, service)| (*key, service.clone())).collect();
    for (key, service) in frontends {
        datapath.frontends.insert(key, Service { flags: service.flags | flags::EDGE, ..service });
    }
    datapath
}

fn interfaces(ifindex: u32) -> BTreeMap<IpAddr, Interface> {
    let interface = Interface { ifindex, mac: [2, 0, 0, 0, 0, 1] };
    [(address("10.0.0.1"), interface), (address("fd00::1"), interface)].into()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Numbers of the programs at an interface's hooks.
fn programs(kernel: &Kernel) -> BTreeMap<Program, u32> {
    kernel.programs().into_iter().map(|(program, info)| (program, info.id())).collect()
}

fn attached_programs(options: &Options, ifindex: u32) -> Vec<u32> {
    use std::os::fd::AsFd as _;
    let pins = Pins::new(&options.pins);
    let link = |program: Program| {
        let link = sys::object_get(&pins.link(ifindex, program.name())).ok()?;
        sys::object_info::<sys::LinkInfo>(link.as_fd()).ok().map(|info| info.program)
    };
    [Program::FromPod, Program::ToPod].into_iter().filter_map(link).collect()
}

#[test]
fn what_is_committed_is_what_the_maps_hold() {
    in_namespace(|object, options| {
        let mut kernel = Kernel::open(object, options).unwrap();
        assert_eq!(kernel.revision().unwrap(), 0);
        let pod = kernel.attach_pod("pod0").unwrap();
        let report = kernel.commit(&datapath(), &interfaces(pod)).unwrap();
        assert_eq!((report.revision, report.left_over), (1, None));

        let held = Maps::open(&Pins::new(&options.pins)).unwrap().read().unwrap();
        let known = &kernel.layout.as_ref().unwrap().image;
        assert_eq!(held.endpoints, known.endpoints);
        assert_eq!(held.endpoints.len(), 2);
        assert_eq!((&held.identities, &held.peers), (&known.identities, &known.peers));
        assert_eq!((&held.frontends, &held.members), (&known.frontends, &known.members));
        assert_eq!(held.state, known.state);
        assert_eq!(held.vectors[..known.vectors.len()], known.vectors);
        assert_eq!(held.rules[..known.rules.len()], known.rules);
        assert_eq!(held.rings, known.rings);

        assert!(kernel.commit(&datapath(), &interfaces(pod)).unwrap().writes.is_empty());
        let usage = kernel.map_usage().unwrap();
        let endpoints = usage.iter().find(|usage| usage.map == "ENDPOINTS_V4").unwrap();
        assert_eq!((endpoints.entries, endpoints.capacity), (1, 16));
        // A trie has nothing allocated while it is empty.
        assert!(usage.iter().all(|usage| usage.bytes > 0 || usage.entries == 0), "{usage:?}");
        assert_eq!(kernel.drops().unwrap().len(), HOOKS * REASONS);
        assert_eq!(kernel.forwarded().unwrap().len(), HOOKS);
        assert_eq!(kernel.flows().unwrap().iter().count(), 0);
    });
}

#[test]
fn pods_without_an_attached_interface_have_no_endpoint() {
    in_namespace(|object, options| {
        let mut kernel = Kernel::open(object, options).unwrap();
        kernel.commit(&datapath(), &interfaces(1)).unwrap();
        assert!(kernel.layout.as_ref().unwrap().image.endpoints.is_empty());
    });
}

#[test]
fn a_restarted_agent_adopts_the_maps_and_replaces_the_programs() {
    in_namespace(|object, options| {
        let mut first = Kernel::open(object, options).unwrap();
        let pod = first.attach_pod("pod0").unwrap();
        first.commit(&datapath(), &interfaces(pod)).unwrap();
        let old = programs(&first);
        drop(first);
        assert_eq!(attached_programs(options, pod), [old[&Program::FromPod], old[&Program::ToPod]]);

        let larger = Options { sizes: Sizes::default(), ..options.clone() };
        let mut second = Kernel::open(object, &larger).unwrap();
        let new = programs(&second);
        assert_ne!(old[&Program::FromPod], new[&Program::FromPod]);
        assert_eq!(attached_programs(options, pod), [new[&Program::FromPod], new[&Program::ToPod]]);
        assert_eq!(*second.sizes(), small(), "pinned maps keep their sizes");
        assert_eq!(second.revision().unwrap(), 1);
        // Only the epoch: everything else stands already.
        let report = second.commit(&datapath(), &interfaces(pod)).unwrap();
        assert_eq!(report.writes, BTreeMap::from([("STATE", 1)]));
    });
}

#[test]
fn a_second_agent_is_kept_out() {
    in_namespace(|object, options| {
        let _first = Kernel::open(object, options).unwrap();
        let second = Kernel::open(object, options).unwrap_err();
        assert!(matches!(second, KernelError::Locked { .. }), "{second}");
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_refused_and_stays() {
    in_namespace(|object, options| {
        let pins = Pins::new(&options.pins);
        drop(pins.prepare().unwrap());
        let other = sys::MapFd::create(sys::map_type::HASH, 4, 4, 1, 0).unwrap();
        use std::os::fd::AsFd as _;
        sys::object_pin(other.as_fd(), &pins.map("PEERS")).unwrap();
        let error = Kernel::open(object, options).unwrap_err();
        assert!(matches!(error, KernelError::Mismatch { .. }), "{error}");
        assert!(error.to_string().contains("weir detach --all"), "{error}");
        assert!(sys::object_get(&pins.map("PEERS")).is_ok());
        assert!(sys::object_get(&pins.map("STATE")).is_err(), "nothing else was pinned");
    });
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    in_namespace(|object, options| {
        let mut kernel = Kernel::open(object, options).unwrap();
        let pod = kernel.attach_pod("pod0").unwrap();
        kernel.commit(&datapath(), &interfaces(pod)).unwrap();
        let mut large = datapath();
        for host in 0..70_u8 {
            large.identities.insert(format!("10.1.0.{host}/32").parse().unwrap(), 18_u32);
        }
        assert!(matches!(kernel.check(&large), Err(KernelError::TooLarge(_))));
        let error = kernel.commit(&large, &interfaces(pod)).unwrap_err().to_string();
        assert!(error.starts_with("IDENTITIES_V4 holds 64 elements; this change needs 72"), "{error}");
        assert_eq!(kernel.revision().unwrap(), 1);
        assert!(kernel.commit(&datapath(), &interfaces(pod)).unwrap().writes.is_empty());
    });
}

#[test]
fn links_that_were_removed_are_noticed_and_put_back() {
    for mode in [AttachMode::Tcx, AttachMode::Clsact] {
        in_namespace(move |object, options| {
            let options = Options { attach_mode: Some(mode), ..options.clone() };
            let mut kernel = Kernel::open(object, &options).unwrap();
            let pod = kernel.attach_pod("pod0").unwrap();
            assert_eq!(kernel.verify().unwrap(), []);
            match mode {
                AttachMode::Tcx => {
                    std::fs::remove_file(Pins::new(&options.pins).link(pod, "to_pod")).unwrap();
                    let (_, programs) = SchedClassifier::query_tcx("pod0", TcAttachType::Egress).unwrap();
                    assert_eq!(programs.len(), 1, "it stays attached without its pin");
                }
                AttachMode::Clsact => tc("filter del dev pod0 egress"),
            }
            assert_eq!(kernel.verify().unwrap(), [(pod, Program::ToPod)]);
            assert_eq!(kernel.repair().unwrap(), [(pod, Program::ToPod)]);
            assert_eq!(kernel.verify().unwrap(), []);

            ip("link del pod0");
            assert_eq!(kernel.repair().unwrap(), []);
            assert_eq!(kernel.attached().len(), 0);
        });
    }
}

#[test]
fn clsact_filters_are_replaced_in_place_and_leave_no_qdisc() {
    in_namespace(|object, options| {
        let options = Options { attach_mode: Some(AttachMode::Clsact), ..options.clone() };
        // This qdisc is somebody else's and stays.
        tc("qdisc add dev up0 clsact");
        let mut kernel = Kernel::open(object, &options).unwrap();
        let (pod, uplink) = (kernel.attach_pod("pod0").unwrap(), kernel.attach_uplink("up0").unwrap());
        drop(kernel);
        let mut kernel = Kernel::open(object, &options).unwrap();
        // Two at each interface, and one at the loopback interface.
        assert_eq!(kernel.attached().len(), 5);
        assert_eq!(kernel.netlink.filters(pod).unwrap().len(), 2, "replaced, not added");
        assert!(kernel.detach(uplink).is_empty());
        assert!(kernel.netlink.has_clsact(uplink).unwrap());
        assert_eq!(kernel.netlink.filters(uplink).unwrap().len(), 0);

        let netlink = super::netlink::Netlink::open().unwrap();
        drop(kernel);
        let errors = detach_all(&options.pins);
        assert!(errors.is_empty(), "{errors:?}");
        assert!(!netlink.has_clsact(pod).unwrap());
        assert!(!options.pins.exists());
    });
}

#[test]
fn an_agent_of_the_other_mode_takes_over() {
    in_namespace(|object, options| {
        for mode in [AttachMode::Clsact, AttachMode::Tcx, AttachMode::Clsact] {
            let options = Options { attach_mode: Some(mode), ..options.clone() };
            let mut kernel = Kernel::open(object, &options).unwrap();
            let pod = kernel.attach_pod("pod0").unwrap();
            assert_eq!(kernel.verify().unwrap(), []);
            let (links, filters) = (attached_programs(&options, pod), kernel.netlink.filters(pod).unwrap());
            let expected = if mode == AttachMode::Tcx { (2, 0) } else { (0, 2) };
            assert_eq!((links.len(), filters.len()), expected);
        }
    });
}

#[test]
fn the_edge_is_attached_in_a_way_that_what_it_sends_arrives() {
    in_namespace(|object, options| {
        // A bridge's driver takes no program.
        ip("link add none0 type bridge");
        let datapath = asking_for_the_edge();
        for (mode, uplink, expected) in [
            (XdpMode::Native, "up0", Some("XDP native")),
            // And after an agent that was told otherwise.
            (XdpMode::Auto, "up0", Some("XDP generic")),
            (XdpMode::Generic, "up0", Some("XDP generic")),
            (XdpMode::Off, "up0", None),
            (XdpMode::Auto, "none0", Some("XDP generic")),
            (XdpMode::Off, "none0", None),
        ] {
            let options = Options { xdp_mode: mode, ..options.clone() };
            let mut kernel = Kernel::open(object, &options).unwrap();
            let ifindex = kernel.attach_uplink(uplink).unwrap();
            kernel.commit(&datapath, &BTreeMap::new()).unwrap();
            let is_attached = kernel.attached().any(|attached| attached == (ifindex, Program::Edge));
            let found = is_attached.then(|| kernel.attached_by(Program::Edge));
            assert_eq!((found.as_deref(), kernel.edge_refused()), (expected, None), "{mode:?} at {uplink}");
            assert_eq!(kernel.verify().unwrap(), []);
        }
    });
}

#[test]
fn why_the_edge_is_not_attached_is_known_until_nobody_asks_for_it() {
    in_namespace(|object, options| {
        ip("link add none0 type bridge");
        let options = Options { xdp_mode: XdpMode::Native, ..options.clone() };
        let mut kernel = Kernel::open(object, &options).unwrap();
        kernel.attach_uplink("none0").unwrap();
        let (plain, asking) = (datapath(), asking_for_the_edge());
        for (datapath, refused) in [(&plain, false), (&asking, true), (&plain, false)] {
            kernel.commit(datapath, &BTreeMap::new()).unwrap();
            assert_eq!(kernel.edge_refused().is_some(), refused, "{:?}", kernel.edge_refused());
            assert!(kernel.edge_refused().is_none_or(|why| why.contains("none0")));
            assert!(kernel.attached().all(|(_, program)| program != Program::Edge));
        }
    });
}

#[test]
fn before_the_first_commit_everything_is_dropped() {
    in_namespace(|object, options| {
        let mut kernel = Kernel::open(object, options).unwrap();
        let pod = kernel.attach_pod("pod0").unwrap();
        let outcome = run(&kernel, Program::FromPod, pod, &udp());
        assert_eq!(outcome.verdict, DROP);
        let drops = kernel.drops().unwrap().into_iter().filter(|(hook, ..)| *hook == Hook::FromPod);
        assert_eq!(drops.map(|(_, _, counter)| counter.packets).sum::<u64>(), 1);
    });
}

#[test]
fn events_reach_their_reader() {
    in_namespace(|object, options| {
        let options = Options { events: events::DROPS | events::FLOWS, ..options.clone() };
        let mut kernel = Kernel::open(object, &options).unwrap();
        let pod = kernel.attach_pod("pod0").unwrap();
        kernel.commit(&datapath(), &interfaces(pod)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let event = runtime.block_on(async {
            let mut events = kernel.events().unwrap();
            // A VLAN tag: dropped whatever is committed.
            let mut packet = udp();
            packet.splice(12..12, [0x81, 0x00, 0x00, 0x01]);
            run(&kernel, Program::FromPod, pod, &packet);
            tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap()
        });
        assert_eq!((event.kind, event.len), (kind::DROP, 64));
    });
}

#[test]
fn a_first_start_that_fails_leaves_nothing() {
    in_namespace(|_, options| {
        for object in [&[][..], &[0x7f, b'E', b'L', b'F']] {
            let error = Kernel::open(object, options).unwrap_err();
            assert!(matches!(error, KernelError::Load { .. }), "{error}");
            assert!(!options.pins.exists());
        }
    });
}

#[test]
fn pins_off_a_bpf_file_system_are_refused() {
    let error = Pins::new(Path::new("/tmp/weir-no-bpffs")).prepare().unwrap_err();
    assert!(error.to_string().contains("mount -t bpf"), "{error}");
    assert!(!Path::new("/tmp/weir-no-bpffs").exists());
}

/// `TC_ACT_SHOT`.
const DROP: u32 = 2;

/// A UDP packet of 60 bytes from 10.0.0.1 to 10.0.0.2.
fn udp() -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.udp(1000, 2000).write(&mut packet, &[0; 18]).unwrap();
    packet
}

fn run(kernel: &Kernel, program: Program, ifindex: u32, data: &[u8]) -> sys::Outcome {
    use std::os::fd::AsFd as _;
    let programs = kernel.programs();
    let (_, info) = programs.iter().find(|(found, _)| *found == program).unwrap();
    let packet = sys::Packet { data, ifindex, ingress_ifindex: ifindex, ..sys::Packet::default() };
    sys::test_run(info.fd().unwrap().as_fd(), &packet).unwrap()
}

fn tc(arguments: &str) {
    let status = Command::new("tc").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "tc {arguments}");
}
