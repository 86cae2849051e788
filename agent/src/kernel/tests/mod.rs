//! The kernel side on the running kernel: needs root, and the kernel programs that the build was made with.

mod hooks;
mod maps;
mod packets;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    process::Command,
    sync::Arc,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, unshare};
use weir_common::service::member;

use super::{Kernel, Options, Program, XdpMode, detach_all, pins::Pins, sys};
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
        let internal = Arc::new(Ring::new(vec![backend], &[0; 7]));
        let external = Arc::default();
        let members = BTreeMap::from([(backend, member::SERVES | member::CLUSTER)]).into();
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
